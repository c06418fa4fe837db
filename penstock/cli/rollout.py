"""`penstock rollout`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

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
from penstock.cli.rollout_experiment import experiment
from penstock.cli.rollout_render import go_back, rendered, step
from penstock.core.errors import ConfigurationError, Interrupted, RolledBack

if TYPE_CHECKING:
    from penstock.cli.rollout_proof import Past
    from penstock.cli.rollout_view import State
    from serving.rollout.record import Command
    from serving.targets.target import Target


@click.group()
def command() -> None:
    """Show and steer how new versions take over, and prove how it was decided."""


command.add_command(step)
command.add_command(experiment)


@command.command()
@click.argument("name", required=False)
@render_option
@target_options
@output_option
def status(where: Where, name: str | None, output: str) -> None:
    """Show the current or last rollout of every name, or of NAME.

    E-values: 1 is no evidence. `worse` speaks for a rollback, `proof` for going on.
    """
    from penstock.cli import rollout_view as view

    target = where.target()
    every = [name] if name else view.names(target)
    found = [view.read(target, each) for each in every]
    if output == "json":
        documents = [view.document(state) for state in found]
        print_json(documents[0] if name else {"rollouts": documents})
        return
    for state in found:
        click.echo("\n".join(view.lines(state)))
    if not found:
        click.echo("no rollouts yet; next: penstock run with another checkpoint of a served name")


@command.command()
@click.argument("name")
@target_options
def watch(where: Where, name: str) -> None:
    """Show the rollout of NAME until it is over; Ctrl-C ends only the watching.

    Exit code 0: promoted; 4: rolled back.
    """
    try:
        last = _watched(where.target(), name, terminal=sys.stdout.isatty())
    except KeyboardInterrupt:
        raise Interrupted(
            "no longer watched; the rollout goes on",
            hint=f"penstock rollout watch {name}{where.options}",
        ) from None
    record = last.record
    if record.phase == "rolled_back":
        raise RolledBack(
            f"{record.candidate} was rolled back: {record.reason}",
            hint=f"{record.stable} is served as before; penstock rollout certificate write {name}"
            f"{where.options}",
        )


def _watched(target: Target, name: str, *, terminal: bool) -> State:
    from penstock.cli import rollout_view as view
    from penstock.cli import rollout_watch as watching

    look: Callable[[], State] = lambda: view.read(target, name)  # noqa: E731
    if not terminal:
        return watching.follow(look, watching.lines)
    from rich.console import Console

    with watching.terminal(Console()) as show:
        return watching.follow(look, show)


@command.command()
@click.argument("name")
@render_option
@target_options
def pause(where: Where, name: str) -> None:
    """Keep the weights of NAME's rollout as they are, until resumed."""
    state = _read(where, name)
    if state.record.held == "paused":
        raise ConfigurationError(
            f"{name}: it is paused already", hint=f"penstock rollout resume {name}{where.options}"
        )
    left_s = state.policy.deadlines.held_s
    _ask(
        where,
        state,
        "pause",
        f"its weights stay as they are; without resume it is rolled back after {left_s:g} s",
    )


@command.command()
@click.argument("name")
@render_option
@target_options
def resume(where: Where, name: str) -> None:
    """Let NAME's rollout go on from where it was held."""
    state = _read(where, name)
    held = state.record.held
    if not held and state.record.command != "pause":
        # recorded now, it would undo the next hold, whatever the reason
        raise ConfigurationError(
            f"{name}: it is not held, there is nothing to resume",
            hint=f"penstock rollout status {name}{where.options}",
        )
    again = f"; it is held again while it is still so: {state.record.reason}"
    _ask(where, state, "resume", f"it goes on{again if held not in ('', 'paused') else ''}")


@command.command()
@click.argument("name")
@render_option
@target_options
def promote(where: Where, name: str) -> None:
    """Give NAME's candidate all traffic now, before the evidence does."""
    state = _read(where, name)
    early = state.record.phase in ("deploying", "warmup")
    _ask(
        where,
        state,
        "promote",
        f"{state.record.candidate} gets 100 %{' as soon as it is warm' if early else ''}; "
        f"{state.record.stable} stays warm for {state.policy.soak_s:g} s and is then removed",
    )


@command.command()
@click.argument("name")
@render_option
@target_options
def rollback(where: Where, name: str) -> None:
    """Take all traffic from NAME's candidate, and remove it."""
    state = _read(where, name)
    record = state.record
    _ask(
        where, state, "rollback", f"{record.stable} gets 100 %, then {record.candidate} is removed"
    )


@command.command()
@click.argument("name")
@click.option(
    "--timeout",
    default=600.0,
    show_default=True,
    type=click.FloatRange(min=1),
    help="Seconds that the old version may take to become ready.",
)
@render_option
@target_options
def revert(where: Where, name: str, timeout: float) -> None:
    """Serve the version before NAME's last promotion again, as soon as it is ready.

    Made again from its snapshot if it was removed; nothing is proven, a person says so. Doing it
    twice undoes it. With --render, each call writes one step into DIR.
    """
    from components.steps.rollout import promoted
    from serving import deploy

    if where.render is not None:
        click.echo(go_back(rendered(where), name))
        return
    target = where.target()
    site = deploy.Site(
        target.cluster,
        lambda: target.observed(name),
        target.traffic,
        target.why,
        hint=target.hint,
    )
    done = deploy.revert(site, name, timeout)
    click.echo(f"{name}: {done.service} gets 100 %, it was ready after {done.ready_s:.1f} s")
    for service in done.replaced:
        again = f"penstock rollout revert {name}{where.options}"
        click.echo(f"{service} was removed; {again} brings it back")
    settings = settings_of()
    if where.cluster and not has_registry(settings):
        click.echo(NO_REGISTRY)
        return
    if promoted(settings, name, done.service):
        click.echo(f"the registry's champion is {done.service}")


def _read(where: Where, name: str) -> State:
    """Return a rollout that can still be steered."""
    from penstock.cli import rollout_view as view

    state = view.read(where.target(), name)
    record = state.record
    if record.over:
        raise ConfigurationError(
            f"{name}: no rollout goes on; the last one was {view.place(record)}: {record.reason}",
            hint=f"penstock rollout history {name}{where.options}",
        )
    if record.phase in ("rolling_back", "rollback_blocked"):
        raise ConfigurationError(
            f"{name}: it is being rolled back: {record.reason}",
            hint=f"penstock rollout watch {name}{where.options}",
        )
    return state


def _ask(where: Where, state: State, asked: Command, follows: str) -> None:
    """Write a request down, and say what happens next and who does it."""
    from serving import controller as acting

    target = where.target()
    acting.command(target.cluster, target.log, state.name, asked, target.traffic)
    click.echo(f"{state.name}: {asked} is written down; {follows}")
    if where.render is not None:
        who, then = "the next step does it", f"penstock rollout step {state.name}{where.options}"
    elif state.holder:
        who, then = f"{state.holder} does it", f"penstock rollout watch {state.name}{where.options}"
    else:
        who = "nobody looks after this rollout, so nothing happens"
        then = f"penstock controller{where.options}"
    click.echo(f"{who}; next: {then}")


@command.command()
@click.argument("name", required=False)
@render_option
@target_options
@output_option
def history(where: Where, name: str | None, output: str) -> None:
    """Show every rollout of the event log, the newest first; or those of NAME."""
    from penstock.cli import rollout_proof as proof

    found = sorted(_past(where.target(), name), key=lambda item: item[1].started_at, reverse=True)
    if output == "json":
        print_json({"rollouts": [{"name": each, **asdict(past)} for each, past in found]})
        return
    for each, past in found:
        click.echo(
            f"{proof.moment(past.started_at)}  {each:<12} {past.candidate} against {past.stable}: "
            f"{past.outcome.replace('_', ' ')} after {past.seconds:.1f} s\n{'':22}{past.reason}"
        )
    if not found:
        click.echo("no rollouts yet; next: penstock run with another checkpoint of a served name")


def _past(target: Target, name: str | None) -> list[tuple[str, Past]]:
    from penstock.cli import rollout_proof as proof
    from penstock.cli import rollout_view as view
    from serving.rollout import events

    logged = set(target.log.names())  # also of names that are gone
    if name is not None and name not in logged:
        raise view.unknown(name, sorted(logged))
    found = []
    for each in sorted(logged) if name is None else [name]:
        chains = events.chains(target.log.lines(each), view.chain(target, each))
        found += [(each, proof.past(chain)) for chain in chains]
    return found


@command.group()
def certificate() -> None:
    """Write the proof of how a rollout was decided, or check one."""


@certificate.command()
@click.argument("name")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Where to.  [default: CANDIDATE.certificate.json]",
)
@render_option
@target_options
def write(where: Where, name: str, out: Path | None) -> None:
    """Write the certificate of NAME's current or last rollout."""
    from penstock.cli import rollout_view as view
    from serving.rollout import events

    target = where.target()
    state = view.read(target, name)
    record = state.record
    text = events.certificate(state.written, record, target.log.lines(name))
    path = out or Path(f"{record.candidate}.certificate.json")
    try:
        path.write_text(text)
    except FileNotFoundError as problem:
        raise ConfigurationError(
            f"{path}: no such folder", hint="choose another with --out"
        ) from problem
    sofar = "" if record.over else ", as far as it got"
    click.echo(f"wrote {path}: {record.candidate}, {view.place(record)}{sofar}")
    click.echo(f"next: penstock rollout certificate verify {path}")


@certificate.command()
@click.argument("file", type=click.Path(path_type=Path))
@output_option
def verify(file: Path, output: str) -> None:
    """Decide everything in FILE again, offline, and compare.

    Exit code 0: every decision is the one that was made; 5: not so.
    """
    from penstock.cli import rollout_proof as proof
    from penstock.cli import rollout_view as view

    found = proof.verified(_text(file))
    last, decisions = found.last, found.decisions
    if output == "json":
        print_json(
            {
                "holds": True,
                "candidate": last.candidate,
                "stable": last.stable,
                "phase": last.phase,
                "chain": last.chain,
                "decisions": [decision.document() for decision in decisions],
            }
        )
        return
    for line in proof.lines(decisions, found.policy):
        click.echo(line)
    click.echo(
        f"holds: {len(decisions)} events, decided again, lead to the same end: "
        f"{last.candidate}, {view.place(last)}"
    )


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as problem:
        raise ConfigurationError(
            f"{path}: {problem.strerror}", hint="penstock rollout certificate write NAME makes one"
        ) from problem
    except UnicodeDecodeError as problem:
        raise ConfigurationError(f"{path}: not UTF-8 at byte {problem.start}") from problem
