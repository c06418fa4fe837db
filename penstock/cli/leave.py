"""`penstock leave`."""

from __future__ import annotations

import click

from penstock.cli.adopt import by_route, dry_run_option
from penstock.cli.edge import Where, target_options


@click.command()
@click.argument("name")
@dry_run_option
@target_options
def command(where: Where, name: str, dry_run: bool) -> None:
    """Give NAME's stable version back: an InferenceService and a route with nothing of Penstock's.

    Users are led all the time, by the same hosts; Penstock's own route goes last. Doing it again
    goes on where it stopped.
    """
    from serving.adoption import act
    from serving.adoption.leave import leave
    from serving.adoption.writes import Write, lines

    target = by_route(where)

    def plan() -> list[Write]:
        return leave(act.around_name(target.cluster, name), name)

    first = plan()
    if not first:
        click.echo(f"nothing of Penstock's is there for {name!r}")
        return
    if dry_run:
        click.echo("\n".join(lines(first)))
        return
    act.act(target.cluster, plan, target.facts, click.echo)
    click.echo(f"{name} is no longer Penstock's; the registry keeps its versions")
