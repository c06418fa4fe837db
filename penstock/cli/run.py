"""`penstock run`."""

from __future__ import annotations

import sys
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import click

from penstock.cli.edge import (
    environment,
    need,
    output_option,
    print_json,
    render_option,
    settings_of,
)
from penstock.core.errors import ConfigurationError, Interrupted
from penstock.core.spec import ModelSpec

if TYPE_CHECKING:
    from penstock.core.runs import RunRecord
    from pipelines.runner import Asked


@click.command()
@click.argument("spec", type=click.Path(path_type=Path), default=Path("model.yaml"))
@click.option("--no-start", is_flag=True, help="Do not start the local cluster.")
@render_option
@output_option
def command(spec: Path, no_start: bool, render: Path | None, output: str) -> None:
    """Pull, check, evaluate, register and serve what SPEC (model.yaml) describes.

    Running it again resumes: what is done is reused, by the digests of what went in.
    """
    started_at = time.time()
    env = environment(PENSTOCK_RUN_ID=new_run_id())
    if render is not None:
        env["PENSTOCK_RENDER"] = str(render.absolute())
    model = read_spec(spec)
    need("local", "torch", "transformers", "great_expectations", "aiohttp", "mlflow")
    if model.target != "local":
        need("cluster", "kubernetes", "boto3")
    elif not no_start:
        start_cluster(env)
    record = run_lifecycle(model, env, started_at=started_at, quiet=output == "json")
    run_dir = settings_of(env).run_dir
    if output == "json":
        print_json(record.summary())  # which has the failure too
        sys.exit(_exit_code(record))
    click.echo(f"{record.outcome} in {record.wall_s:.1f} s; report: {run_dir / 'report.html'}")
    raise_failure(record, run_dir)


def read_spec(path: Path, *, anchored: bool = True) -> ModelSpec:
    """Return the spec in a file; relative data paths start at its folder, unless not anchored."""
    from penstock.core.documents import parse_spec

    try:
        text = path.read_text(encoding="utf-8")
    except OSError as problem:
        raise ConfigurationError(
            f"{path}: {problem.strerror}", hint="penstock init writes one"
        ) from problem
    except UnicodeDecodeError as problem:
        raise ConfigurationError(f"{path}: not UTF-8 at byte {problem.start}") from problem
    folder = str(path.parent.absolute()) if anchored else None
    return parse_spec(text, where=str(path), folder=folder)


def new_run_id() -> str:
    """Return a name for a run: when it began, and something that makes it unique."""
    return f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{uuid.uuid4().hex[:4]}"


def start_cluster(env: dict[str, str]) -> list[str]:
    """Start the local cluster where it does not run; return what was started."""
    from penstock.cli.supervise import command as supervisor
    from pipelines.runner import check_paths
    from serving.local import lifecycle

    settings = settings_of(env)
    check_paths(settings)
    return lifecycle.up(settings, env, supervisor(settings.cluster, settings.store))


def run_lifecycle(
    model: ModelSpec,
    env: dict[str, str],
    *,
    started_at: float,
    quiet: bool,
    asked: Asked | None = None,
) -> RunRecord:
    """Execute the pipeline, or another that is asked for, and show it.

    Ctrl-C becomes `Interrupted`.
    """
    from penstock.cli.watch import watching
    from pipelines.runner import LIFECYCLE, execute
    from pipelines.steps import STEPS_OF

    asked = asked or LIFECYCLE
    try:
        if quiet:
            return execute(
                model, env, started_at=started_at, watch=lambda _sight: None, asked=asked
            )
        with watching(STEPS_OF[asked.pipeline], terminal=sys.stdout.isatty()) as show:
            return execute(model, env, started_at=started_at, watch=show, asked=asked)
    except KeyboardInterrupt:
        raise Interrupted(
            "interrupted; what is done is kept", hint="run the same command again to resume"
        ) from None


def _exit_code(record: RunRecord) -> int:
    if record.outcome == "done":
        return 0
    failed = record.failure
    return failed.failure.exit_code if failed and failed.failure else 1


def raise_failure(record: RunRecord, run_dir: Path) -> None:
    """Raise the error of a failed run."""
    from pipelines.runner import failure_of

    failure = failure_of(record, run_dir)
    if failure is not None:
        raise failure
