"""What happened in a rollout, from its events: told as they were written, or decided again."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from penstock.cli import rollout_view as view
from penstock.core.errors import ConfigurationError, DigestMismatch
from penstock.core.spec import Rollout
from serving.rollout import events
from serving.rollout.judge import Judge, told
from serving.rollout.record import OVER, Record


@dataclass(frozen=True, slots=True)
class Past:
    """One rollout of the event log."""

    candidate: str
    stable: str
    outcome: str
    """promoted, rolled_back, or unfinished."""

    reason: str
    started_at: float
    seconds: float
    """Until it was over, or until its last event."""

    events: int


@dataclass(frozen=True, slots=True)
class Decision:
    """One event of a certificate, decided again."""

    at: float
    """Seconds since the rollout began; that of the look before for what has no time."""

    do: str
    told: str
    rollback: float
    """Natural logarithm of the e-value over all metrics."""

    proofs: Mapping[str, float]
    """Metric → natural logarithm of its e-value, where the phase before asked for proof."""

    def document(self) -> dict[str, Any]:
        """Return it for programs, with e-values."""
        return {
            "at_s": self.at,
            "do": self.do,
            "told": self.told,
            "rollback": view.e_value(self.rollback),
            "proofs": {name: view.e_value(log) for name, log in self.proofs.items()},
        }


class Checked(NamedTuple):
    """A certificate that holds."""

    decisions: list[Decision]
    policy: Rollout
    last: Record


def past(chain: list[str]) -> Past:
    """Return what became of a rollout, from its events."""
    bodies = [json.loads(event) for event in chain]
    first = bodies[0]["record"]
    last_at, outcome, reason = first["started_at"], "unfinished", first["reason"]
    for body in bodies:
        if body["kind"] != "look":
            continue
        last_at = body["seen"]["now"]
        action = body["action"]
        if action["do"] in ("shift", "hold", "resume"):
            reason = action["reason"]
        if action["do"] == "shift" and action["phase"] in OVER:
            outcome = action["phase"]
    return Past(
        candidate=first["candidate"],
        stable=first["stable"],
        outcome=outcome,
        reason=reason,
        started_at=first["started_at"],
        seconds=last_at - first["started_at"],
        events=len(bodies),
    )


def verified(text: str) -> Checked:
    """Decide every step of a certificate again and return what was decided.

    Raises:
        DigestMismatch: A decision is another one, or the file was changed.
        ConfigurationError: It is no certificate.
    """
    try:
        replayed = events.verify(text)
        policy = Rollout.model_validate(json.loads(text)["policy"])
        return Checked(list(_decisions(replayed, policy)), policy, replayed[-1].record)
    except DigestMismatch as problem:
        raise DigestMismatch(
            f"the certificate does not hold: {problem}",
            hint="do not trust it; penstock rollout certificate write makes one from the event log",
        ) from problem
    except ConfigurationError as problem:
        raise ConfigurationError(
            str(problem), hint="penstock rollout certificate write makes one"
        ) from problem
    except (AttributeError, ArithmeticError, LookupError) as problem:
        raise ConfigurationError(
            f"not a certificate: {type(problem).__name__}: {problem}",
            hint="penstock rollout certificate write makes one",
        ) from problem


def lines(decisions: Iterable[Decision], policy: Rollout) -> Iterator[str]:
    """Yield decisions for people; looks that changed nothing are one line until something did."""
    for do, group in itertools.groupby(decisions, key=lambda d: (d.do, d.do != "stay" or d.told)):
        several = list(group)
        if do[0] == "stay":
            yield _line(several[-1], policy, f"{several[-1].told} ({len(several)} looks)")
        else:
            yield from (_line(each, policy, each.told) for each in several)


def moment(at: float) -> str:
    """Return a time for people: to the second, in UTC."""
    return time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(at))


def _line(decision: Decision, policy: Rollout, said: str) -> str:
    text = f"{decision.at:+9.1f} s  {said}"
    if decision.do in ("start", "change"):
        return text
    values = ", ".join(f"{name} {told(log)}" for name, log in decision.proofs.items())
    proofs = f"; proofs, {view.bound(policy, 'proof')} wanted: {values}" if values else ""
    demand = view.bound(policy, "rollback")
    return f"{text}\n{'':13}e-values: rollback {told(decision.rollback)} of {demand}{proofs}"


def _decisions(replayed: list[events.Replayed], policy: Rollout) -> Iterator[Decision]:
    judge, at = Judge(policy), 0.0
    begun, before = replayed[0].record.started_at, replayed[0].record
    for event in replayed:
        at = event.now - begun if event.now else at
        verdict = judge.verdict(event.record.evidence)
        setting, multiple = events.proving(before, policy)
        proofs = verdict.proofs[setting, multiple] if setting else {}
        asked = {
            name: proofs[name]
            for name, margins in sorted(policy.metrics.items())
            if setting and setting in margins.prove_in
        }
        do, said = _said(event, before)
        yield Decision(at, do, said, verdict.rollback, asked)
        before = event.record


def _said(event: events.Replayed, before: Record) -> tuple[str, str]:
    record = event.record
    if event.kind == "start":
        return "start", f"{record.candidate} against {record.stable}, {moment(record.started_at)}"
    if event.kind == "change":
        if record.command != before.command:
            return "change", f"a person asks: {record.command}"
        return "change", f"{record.owner} looks after it (owner {record.epoch - 1})"
    return str(event.action["do"]), view.words(event.action)
