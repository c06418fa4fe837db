"""`penstock engine run`."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import click

from penstock.cli.edge import environment, output_option, print_json, settings_of
from penstock.cli.run import new_run_id, read_spec
from penstock.core.errors import Interrupted
from penstock.core.runs import RunRecord
from penstock.core.spec import ModelSpec


@click.command("run")
@click.argument("spec", type=click.Path(path_type=Path), default=Path("model.yaml"))
@output_option
def command(spec: Path, output: str) -> None:
    """Pull, check, build and judge what SPEC (model.yaml) asks of TensorRT-LLM.

    Run it where it can run: in the build image, on the GPU it is for. Running it again resumes.
    Exit code 4: it was built, but nothing shows that it may replace its parent.
    """
    from pipelines.runner import failure_of

    started_at = time.time()
    env = environment(PENSTOCK_RUN_ID=new_run_id())
    record = _run(read_spec(spec), env, started_at=started_at, quiet=output == "json")
    run_dir = settings_of(env).run_dir
    failure = failure_of(record, run_dir)
    if output == "json":
        print_json(record.summary())  # which has the failure too
        sys.exit(failure.exit_code if failure else 0)
    click.echo(f"{record.outcome} in {record.wall_s:.1f} s; report: {run_dir / 'report.html'}")
    if failure:
        raise failure


def _run(model: ModelSpec, env: dict[str, str], *, started_at: float, quiet: bool) -> RunRecord:
    from penstock.cli.watch import watching
    from pipelines.runner import Asked, execute
    from pipelines.steps import ENGINE_STEPS

    with watching(ENGINE_STEPS, terminal=not quiet and sys.stdout.isatty()) as show:
        try:
            return execute(
                model,
                env,
                started_at=started_at,
                watch=(lambda _sight: None) if quiet else show,
                asked=Asked("engine"),
            )
        except KeyboardInterrupt:
            raise Interrupted(
                "interrupted; what is done is kept", hint="run the same command again to resume"
            ) from None
