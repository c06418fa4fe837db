"""`penstock schedule`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from penstock.cli.edge import environment, need, output_option, print_json
from penstock.core.errors import ConfigurationError

if TYPE_CHECKING:
    from penstock.cli.schedule_places import Place, Seen
    from penstock.core.schedules import Schedule
    from penstock.core.spec import ModelSpec

local_option: Callable[[Any], Any] = click.option(
    "--local",
    is_flag=True,
    help="On this machine, instead of Kubeflow Pipelines (PENSTOCK_KFP_URL).",
)


@click.group()
def command() -> None:
    """Run pipelines by the clock: retrain and redeploy when something is new."""


def place(local: bool) -> Place:
    """Return where schedules are kept."""
    from penstock.cli.schedule_places import cluster_place, local_place

    return local_place(environment()) if local else cluster_place(environment())


@command.command()
@click.argument("name")
@click.argument("spec", type=click.Path(path_type=Path), default=Path("model.yaml"))
@click.option("--pipeline", default="retrain", show_default=True, help="Which one.")
@click.option("--cron", help="Minute, hour, day of month, month, day of week: '0 3 * * 1-5'.")
@click.option("--every", metavar="DURATION", help="Instead of --cron: 90s, 5m, 2h or 1d.")
@click.option("--timezone", "zone", default="UTC", show_default=True, help="Of --cron.")
@click.option(
    "--deadline", default="6h", show_default=True, help="A run that takes longer is ended."
)
@click.option("--cooldown", help="Least time between two trainings, such as 1d.")
@click.option(
    "--gpu-hours-per-day", type=click.FloatRange(0), help="What trainings of a day may cost."
)
@click.option(
    "--on",
    multiple=True,
    metavar="EVENT",
    help="Also when MLflow says so, or users get worse (penstock schedule watch): version:NAME, "
    "alias:NAME@ALIAS or drift:METRIC.",
)
@click.option(
    "--trigger-cooldown", default="10m", show_default=True, help="Least time between two of these."
)
@click.option("--paused", is_flag=True, help="Create it, but let it not fire yet.")
@click.option(
    "--pod-paths", is_flag=True, help="Paths in SPEC are paths in the pods, not on this machine."
)
@local_option
def create(
    *,
    name: str,
    spec: Path,
    pipeline: str,
    cron: str | None,
    every: str | None,
    zone: str,
    deadline: str,
    cooldown: str | None,
    gpu_hours_per_day: float | None,
    on: tuple[str, ...],
    trigger_cooldown: str,
    paused: bool,
    pod_paths: bool,
    local: bool,
) -> None:
    """Let a pipeline run for SPEC (model.yaml) by the clock, as schedule NAME.

    A schedule of this name that differs is replaced: a run in flight ends first, in peace.
    """
    from penstock.core.schedules import span
    from pipelines.schedules.drift import check

    limits: dict[str, float] = {}
    if cooldown is not None:
        limits["cooldown_s"] = float(span(cooldown, option="--cooldown"))
    if gpu_hours_per_day is not None:
        limits["gpu_hours_per_day"] = gpu_hours_per_day
    model = _spec(spec, local=local, pod_paths=pod_paths)
    body: dict[str, Any] = {
        "name": name,
        "pipeline": pipeline,
        "model": model.name,
        "spec": model.model_dump(mode="json", by_alias=True),
        "when": {
            "cron": cron,
            "every_s": None if every is None else span(every, option="--every"),
            "zone": zone,
        },
        "parameters": limits,
        "deadline_s": span(deadline, option="--deadline"),
        "on": list(on),
        "trigger_cooldown_s": span(trigger_cooldown, option="--trigger-cooldown"),
        "paused": paused,
    }
    schedule = _schedule(body)
    check(schedule, model)
    if pipeline == "retrain" and not model.data.train:
        raise ConfigurationError(
            "data.train is not set: there is nothing to train on",
            hint=f"name the training data in {spec}",
        )
    for line in place(local).put(schedule):
        click.echo(line)


@command.command("list")
@local_option
@output_option
def list_(local: bool, output: str) -> None:
    """Show the schedules: what, when, and how the last run ended."""
    found = place(local).all()
    if output == "json":
        print_json({"schedules": [seen.document() for seen in found]})
        return
    for seen in found:
        click.echo(seen.line())
    if not found:
        click.echo("no schedules yet; next: penstock schedule create NAME model.yaml --every 1d")


@command.command()
@click.argument("name")
@local_option
@output_option
def show(name: str, local: bool, output: str) -> None:
    """Show schedule NAME and its last runs, with what was decided and why."""
    seen: Seen = place(local).get(name)
    if output == "json":
        print_json(seen.document())
        return
    click.echo(seen.line())
    for line in seen.ticks:
        click.echo(f"  {line}")


@command.command()
@click.argument("name")
@local_option
def pause(name: str, local: bool) -> None:
    """Let NAME fire no more; a run in flight goes on."""
    for line in place(local).pause(name, paused=True):
        click.echo(line)


@command.command()
@click.argument("name")
@local_option
def resume(name: str, local: bool) -> None:
    """Let NAME fire again; what it missed stays missed."""
    for line in place(local).pause(name, paused=False):
        click.echo(line)


@command.command()
@click.argument("name")
@local_option
def delete(name: str, local: bool) -> None:
    """Remove NAME; a run in flight goes on to its end."""
    for line in place(local).delete(name):
        click.echo(line)


@command.command()
@click.argument("name")
@click.option("--because", default="a person", show_default=True, help="For the record.")
@local_option
def trigger(name: str, because: str, local: bool) -> None:
    """Run what NAME says now, beside the clock, and wait for its end.

    Exit code 0: it came to a decision, also that nothing is new, or that somebody is at it.
    """
    ended = place(local).trigger(name, because)
    click.echo(f"{ended.outcome}: {ended.told}")
    sys.exit(ended.exit_code)


@command.command()
@click.option("--port", default=8490, show_default=True, help="Where to listen on --host.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Which address to listen on.")
@local_option
def watch(port: int, host: str, local: bool) -> None:
    """Receive MLflow's webhooks, look for drift, and start the schedules that want either (--on).

    The secret shared with MLflow is in PENSTOCK_WEBHOOK_SECRET. MLflow sends to https and public
    addresses only, unless its server is told otherwise: docs/how-to/schedule.md.
    """
    need("local", "aiohttp")
    from penstock.cli.schedule_watch import watch as go

    go(environment(), host, port, local=local)


@command.command()
def serve() -> None:
    """Look after the schedules of this machine, until SIGTERM or Ctrl-C.

    `create --local` starts one by itself, and so does `penstock local up` where there are
    schedules.
    """
    need("local", "apscheduler", "torch", "transformers", "great_expectations", "aiohttp", "mlflow")
    from penstock.cli.schedule_serve import serve as go

    go(environment())


def _spec(path: Path, *, local: bool, pod_paths: bool) -> ModelSpec:
    """Return the spec; for pods it may name nothing that only this machine has."""
    from penstock.cli.run import read_spec

    model = read_spec(path, anchored=local)
    if not local:
        from pipelines.submission.checks import check_for_pods

        check_for_pods(model, where=str(path), pod_paths=pod_paths)
    return model


def _schedule(body: dict[str, Any]) -> Schedule:
    """Return a schedule, or one message that names the option."""
    from pydantic import ValidationError

    from penstock.core.schedules import Schedule

    options = {"every_s": "--every", "zone": "--timezone", "when": "--cron"}
    try:
        return Schedule.model_validate(body)
    except ValidationError as problem:
        error = problem.errors(include_url=False)[0]
        field = str(error["loc"][-1]) if error["loc"] else "parameters"
        said = error.get("ctx", {}).get("error") or error["msg"].removeprefix("Input should be ")
        if error["type"] == "string_pattern_mismatch":
            said = Schedule.model_fields[field].description or said
        found = body["when"].get(field, body.get(field))
        shown = f"found {found!r}; " if isinstance(found, str | int) else ""
        option = options.get(field, field if field == "name" else f"--{field.removesuffix('_s')}")
        raise ConfigurationError(
            f"{option}: {shown}allowed: {said}",
            hint="penstock schedule create --help; nothing was changed",
        ) from problem
