"""`penstock adopt`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from penstock.cli.edge import Where, target_options
from penstock.core.errors import ConfigurationError

if TYPE_CHECKING:
    from serving.targets.kserve import ClusterTarget

_WHY = {
    "InferenceService": "KServe's own routes of them are of another kind, beside which ours splits "
    "nobody's requests",
    "LLMInferenceService": "a name's versions are in one routing group from their creation on",
}
"""Kind of what serves → why there is no other way to it."""

dry_run_option = click.option(
    "--dry-run", is_flag=True, help="Say what would be written, and write nothing."
)


@click.command()
@click.argument("service", metavar="ISVC")
@click.option(
    "--name",
    default="",
    help="What clients call the model.  [default: as its engine is told, else ISVC]",
)
@dry_run_option
@target_options
def command(where: Where, service: str, name: str, dry_run: bool) -> None:
    """Make a running InferenceService that Penstock did not create the stable version of a name.

    It is not changed, and no pod is restarted: an HTTPRoute leads users to it. The next
    penstock run of that name then rolls out against it.
    """
    from serving.adoption import act
    from serving.adoption.adopt import adopt
    from serving.adoption.writes import Write, lines

    target, chosen = by_route(where), name

    def plan() -> list[Write]:
        nonlocal chosen
        chosen, around = act.around_isvc(target.cluster, service, name)
        return adopt(around, chosen, target.facts)

    if dry_run:
        click.echo("\n".join(lines(plan())))
        return
    act.act(target.cluster, plan, target.facts, click.echo)
    click.echo(f"{service} is the stable version of {chosen}; what it is made of stays as it is")
    click.echo(
        f"next: penstock run model.yaml with name: {chosen}; back: penstock leave {chosen}"
        f"{where.options}"
    )


def by_route(where: Where) -> ClusterTarget:
    """Return the cluster, if its traffic is split in the only way that others can be part of.

    Raises:
        ConfigurationError: It is not.
    """
    if not where.cluster:
        raise ConfigurationError("which cluster?", hint="--namespace N names it")
    target = where.cluster_target()
    carrier, served = target.traffic.carrier, target.traffic.served
    if (carrier, served) != ("HTTPRoute", "InferenceService"):
        raise ConfigurationError(
            f"{served}s behind a {carrier} are neither adopted nor left: {_WHY[served]}",
            hint="--mode route: InferenceServices behind an HTTPRoute; docs/how-to/adopt.md",
        )
    return target
