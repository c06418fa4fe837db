"""`penstock local`."""

from __future__ import annotations

from dataclasses import asdict

import click

from penstock.cli.edge import environment, need, output_option, print_json, settings_of
from penstock.cli.run import start_cluster


@click.group()
def command() -> None:
    """Start, stop and show the cluster on this machine."""


@command.command()
def up() -> None:
    """Start the supervisor and the gateway; what runs already is left alone."""
    need("local", "aiohttp", "uvloop", "torch", "transformers")
    from penstock.cli import schedule_serve
    from penstock.cli.schedule_tick import folder_of
    from serving.local import lifecycle

    started = start_cluster(environment())
    if list(folder_of(settings_of()).glob("*.json")) and schedule_serve.start(environment()):
        started.append("scheduler")
    told = f"started {' and '.join(started)}" if started else "runs already"
    click.echo(f"{told}; gateway: {lifecycle.url(settings_of())}")


@command.command()
def down() -> None:
    """Let requests finish, then stop everything; the objects are kept for the next up."""
    from penstock.cli import schedule_serve
    from serving.local import lifecycle

    scheduler = ["scheduler"] if schedule_serve.stop(settings_of()) else []
    stopped = scheduler + lifecycle.down(settings_of())
    click.echo(f"stopped {' and '.join(stopped)}" if stopped else "nothing ran")


@command.command()
@output_option
def status(output: str) -> None:
    """Show processes, versions, weights and why something is not ready."""
    from serving.local import lifecycle

    found = lifecycle.status(settings_of())
    if output == "json":
        print_json(asdict(found))
        return
    click.echo(f"supervisor: {_pid(found.supervisor_pid)}, gateway: {_pid(found.gateway_pid)}")
    click.echo(f"url: {found.gateway_url}")
    for s in found.services:
        state = "ready" if s.ready else f"not ready: {s.reason}"
        click.echo(
            f"  {s.service:<20} {s.weight:>3} %  {s.replicas} replicas, {s.restarts} restarts, "
            f"{state}\n{'':<23} log: {s.log}"
        )
    if not found.services:
        click.echo("  nothing is served; next: penstock run model.yaml")


def _pid(pid: int | None) -> str:
    return "stopped" if pid is None else f"process {pid}"
