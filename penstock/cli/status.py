"""`penstock status`."""

from __future__ import annotations

import click

from penstock.cli.edge import Where, output_option, print_json, settings_of, target_options
from penstock.core.errors import ConfigurationError
from penstock.core.runs import RunRecord


@click.command()
@click.argument("run_id", required=False)
@target_options
@output_option
def command(where: Where, run_id: str | None, output: str) -> None:
    """Show the runs on this machine, the newest first; or the steps of RUN_ID.

    With a context or a namespace: what is served there, weights wanted and observed, pods, and
    rollouts.
    """
    if where.cluster:
        _served(where, output)
        return
    folder = settings_of().home / "runs"
    found = sorted(folder.glob(f"{run_id or '*'}/record.json"), reverse=True)
    if run_id and not found:
        raise ConfigurationError(
            f"no run {run_id!r} in {folder}", hint="penstock status lists them"
        )
    runs = [RunRecord.model_validate_json(path.read_text()) for path in found]
    if output == "json":
        summaries = [run.summary() for run in runs]
        print_json(summaries[0] if run_id else {"runs": summaries})
        return
    if not runs:
        click.echo("no runs yet; next: penstock run model.yaml")
    for run, path in zip(runs, found, strict=True):
        click.echo(f"{run.run_id}  {run.outcome:<11} {run.wall_s:7.1f} s  {run.name}")
        if run_id:
            _steps(run)
            click.echo(f"report: {path.parent / 'report.html'}")


def _served(where: Where, output: str) -> None:
    from penstock.cli import cluster_view as view

    names = view.read(where.cluster_target())
    if output == "json":
        print_json(view.document(names))
        return
    for each in view.lines(names):
        click.echo(each)


def _steps(run: RunRecord) -> None:
    from penstock.cli.watch import line

    for step in run.steps:
        click.echo(f"  {step.outcome:<12}{line(step)}")
