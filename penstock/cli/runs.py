"""`penstock runs`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from penstock.cli.edge import output_option, print_json
from penstock.cli.kfp import (
    document,
    find,
    follow,
    kfp_options,
    task_line,
    timeout_option,
    wait_option,
)

if TYPE_CHECKING:
    from pipelines.submission.client import SubmissionClient
    from pipelines.submission.settings import KfpSettings
    from pipelines.submission.values import Run

run_argument = click.argument("run", metavar="RUN")


@click.group()
def command() -> None:
    """Runs on Kubeflow Pipelines; RUN is a run's identifier, or its name."""


@command.command("list")
@click.option("--name", default="", help="Only those of exactly this name.")
@click.option("--experiment", help="Only those of this experiment.")
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1, 1000))
@kfp_options
@output_option
def list_(name: str, experiment: str | None, limit: int, kfp: KfpSettings, output: str) -> None:
    """Show runs, the newest first."""
    from pipelines.submission.client import connect
    from pipelines.submission.errors import Missing

    with connect(kfp) as client:
        group = client.experiments.named(experiment) if experiment else None
        if experiment and group is None:
            raise Missing(
                f"experiment {experiment}: there is none",
                hint="penstock submit --experiment makes it",
            )
        found = client.runs.list(
            name=name, experiment_id=group.experiment_id if group else "", limit=limit
        )
    if output == "json":
        print_json({"runs": [document(run, kfp) for run in found]})
        return
    for run in found:
        click.echo(_line(run))
    if not found:
        click.echo("no runs; next: penstock submit model.yaml")


@command.command()
@run_argument
@wait_option
@timeout_option
@kfp_options
@output_option
def show(run: str, wait: bool, timeout_s: float | None, kfp: KfpSettings, output: str) -> None:
    """Show a run and its tasks."""
    from pipelines.submission.client import connect

    with connect(kfp) as client:
        _told(client, find(client, run), kfp, output, wait, timeout_s)


@command.command()
@run_argument
@click.option("--task", help="Only this task's.")
@kfp_options
@output_option
def logs(run: str, task: str | None, kfp: KfpSettings, output: str) -> None:
    """Print what a run's tasks have printed, where the server still has it.

    Kubeflow Pipelines keeps no logs itself: it reads them from the pods, or from an archive where
    one is configured. Where both are gone, what the server says of the task is all there is.
    """
    from pipelines.submission.client import connect

    with connect(kfp) as client:
        found = find(client, run)
        parts = list(_logs(client, found, task))
    if output == "json":
        print_json({"run_id": found.run_id, "logs": parts})
        return
    for part in parts:
        click.echo(f"==> {part['task']}" + (f" ({part['pod']})" if part["pod"] else ""))
        click.echo(part["log"] or f"(no log: {part['problem']})")
    if not parts:
        click.echo("no task has begun" if task is None else f"no task {task} has begun")


@command.command()
@run_argument
@wait_option
@timeout_option
@kfp_options
@output_option
def cancel(run: str, wait: bool, timeout_s: float | None, kfp: KfpSettings, output: str) -> None:
    """End a run; what is done is kept, and its exit handler still runs."""
    from pipelines.submission.client import connect

    with connect(kfp) as client:
        _told(client, client.runs.terminate(find(client, run).run_id), kfp, output, wait, timeout_s)


@command.command()
@run_argument
@wait_option
@timeout_option
@kfp_options
@output_option
def retry(run: str, wait: bool, timeout_s: float | None, kfp: KfpSettings, output: str) -> None:
    """Run a failed run's tasks again, from the first that failed."""
    from pipelines.submission.client import connect

    with connect(kfp) as client:
        _told(client, client.runs.retry(find(client, run).run_id), kfp, output, wait, timeout_s)


def _told(
    client: SubmissionClient,
    found: Run,
    kfp: KfpSettings,
    output: str,
    wait: bool,
    timeout_s: float | None,
) -> None:
    """Show a run, or follow it to its end."""
    if wait:
        follow(client, found.run_id, kfp, output, timeout_s)
    else:
        _show(found, kfp, output)


def _logs(client: SubmissionClient, run: Run, wanted: str | None) -> list[dict[str, str]]:
    from pipelines.submission.errors import Missing
    from pipelines.submission.states import real_tasks

    parts = []
    for task in real_tasks(run):
        if wanted is not None and task.name != wanted:
            continue
        for pod in task.pods or ("",):
            log, problem = "", task.error or "it has no pod of its own"
            try:
                log = client.runs.log(run.run_id, pod) if pod else ""
            except Missing as missing:
                problem = f"{task.error}; {missing}" if task.error else str(missing)
            parts.append({"task": task.name, "pod": pod, "log": log, "problem": problem})
    return parts


def _show(run: Run, kfp: KfpSettings, output: str) -> None:
    from pipelines.submission.states import real_tasks

    if output == "json":
        print_json(document(run, kfp))
        return
    click.echo(_line(run))
    for task in real_tasks(run):
        click.echo(f"  {task_line(task)}")
    if run.error:
        click.echo(f"  {run.error}")
    click.echo(f"  {kfp.link(run.run_id)}")


def _line(run: Run) -> str:
    when = run.created_at.strftime("%Y-%m-%d %H:%M:%S") if run.created_at else ""
    return f"{run.run_id}  {run.state:<10}  {when}  {run.name}"
