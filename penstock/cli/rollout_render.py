"""`penstock rollout step`, and going back, where Git holds the weights (docs/gitops.md)."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from penstock.cli.edge import (
    NO_REGISTRY,
    Where,
    has_registry,
    output_option,
    print_json,
    render_option,
    settings_of,
    target_options,
)
from penstock.core.errors import ConfigurationError, ServingError

if TYPE_CHECKING:
    from serving.controller import Controller
    from serving.rollout.record import Record
    from serving.rollout.step import Step
    from serving.targets.rendered import RenderedTarget

OWNER = "git"
"""Of every rollout in a folder: there is one, whichever machine takes the next step."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What a step came to."""

    name: str
    decided: bool
    """Whether something was written that is to be committed and applied."""

    over: bool
    """Whether it has ended, and what lost is out of the folder."""

    phase: str
    candidate: str
    weight: int
    reason: str

    def document(self) -> dict[str, Any]:
        """Return it for programs."""
        return {field: getattr(self, field) for field in self.__slots__}


@click.command()
@click.argument("name")
@click.option(
    "--timeout",
    default=300.0,
    show_default=True,
    type=click.FloatRange(min=0),
    help="Seconds to look for evidence; what was found until then is kept.",
)
@render_option
@target_options
@output_option
def step(where: Where, name: str, timeout: float, output: str) -> None:
    """Take the next decision of NAME's rollout into the manifests of --render DIR.

    Looks at the cluster until the evidence decides something, writes it, and ends: one step, one
    commit. Nothing decided in time is no error; what was seen is kept for the next call.
    """
    target = rendered(where)
    made = decide(target, name, timeout)
    if made.phase == "promoted":
        _champion(where, name, made.candidate)
    if output == "json":
        print_json(made.document())
        return
    click.echo(f"{name}: {made.candidate}, {made.phase} {made.weight} %: {made.reason}")
    again = f"penstock rollout step {name}{target.options}"
    if made.decided:
        click.echo(f"next: commit {target.folder}; when it is applied: {again}")
    elif not made.over:
        click.echo(f"nothing new to apply; what was seen is kept in the folder; next: {again}")


def rendered(where: Where) -> RenderedTarget:
    """Return the folder that a command was given."""
    from serving.targets.rendered import RenderedTarget

    target = where.target()
    if not isinstance(target, RenderedTarget):
        raise ConfigurationError(
            "a step needs the folder that Git holds", hint="--render DIR; docs/gitops.md"
        )
    return target


def decide(target: RenderedTarget, name: str, timeout_s: float) -> Decision:
    """Look at a rollout until something is decided, or the time is over.

    Raises:
        ConfigurationError: The folder has no rollout of that name.
    """
    from penstock.cli import rollout_view as view
    from serving import controller as acting
    from serving import lease
    from serving.rollout.decide import Hold, Remove

    state = view.read(target, name)
    world, never = target.world(name, state.policy), threading.Event()
    controller = acting.Controller(target.cluster, target.log, world, OWNER, traffic=target.traffic)
    before, deadline = acting.weights(state.record), time.monotonic() + timeout_s
    try:
        while True:
            made = _looked(controller, name)
            moved = isinstance(made.action, Hold | Remove) or acting.weights(made.record) != before
            over = not moved and _over(target, made.record)
            if moved or over or time.monotonic() >= deadline:
                record, reason = made.record, made.action.reason
                return Decision(
                    name, moved, over, record.phase, record.candidate, record.weight, reason
                )
            never.wait(target.look_s)
    finally:
        world.close()
        lease.release(target.cluster, name, OWNER)


def go_back(target: RenderedTarget, name: str) -> str:
    """Write the next step back to the version before; return what to tell."""
    from serving.gitops import steps

    old, done = steps.revert(target.cluster, target.traffic, name, target.told(name))
    again = f"penstock rollout revert {name}{target.options}"
    if done:
        return f"{name}: {done}\nnext: commit {target.folder}; when it is applied: {again}"
    weights = target.observed(name)
    if weights == {old: 100}:
        return f"{name}: {old} has all traffic; nothing is left to do"
    return f"{name}: waits until the cluster is as the folder; next: {target.hint}"


def _looked(controller: Controller, name: str) -> Step:
    made = controller.look(name)
    if made is None:
        raise ServingError(
            f"{name}: somebody else wrote the folder meanwhile", hint="take the step again"
        )
    return made


def _over(target: RenderedTarget, record: Record) -> bool:
    loser = record.stable if record.phase == "promoted" else record.candidate
    return record.over and target.cluster.get(target.traffic.served, loser) is None


def _champion(where: Where, name: str, service: str) -> None:
    from components.steps.rollout import promoted

    settings = settings_of()
    if where.cluster and not has_registry(settings):
        click.echo(NO_REGISTRY, err=True)
        return
    promoted(settings, name, service)
