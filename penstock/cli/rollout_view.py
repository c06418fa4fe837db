"""What there is to tell of a rollout: read once, then told as a document, as lines, or live."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from penstock.core.errors import ConfigurationError
from penstock.core.spec import Rollout
from serving import controller as acting
from serving import lease
from serving.cluster import Cluster
from serving.lease import DURATION_S
from serving.rollout import events
from serving.rollout.decide import ROLLBACK_S
from serving.rollout.judge import Judge, Setting, Verdict, told
from serving.rollout.record import Record
from serving.targets.target import Target

_LARGEST_LOG = 700.0  # e to this is still a float


@dataclass(frozen=True, slots=True)
class State:
    """A rollout as it is now."""

    name: str
    record: Record
    policy: Rollout
    written: str
    """The policy, as it was written when the rollout began."""

    routed: Mapping[str, int] | None
    """The weights in force; None while the gateway does not tell."""

    holder: str
    """Who looks after it; empty when nobody does."""

    now: float
    """Seconds since the epoch."""

    hint: str
    """The command that shows what goes on where it is served."""

    options: str
    """What names that place to other commands; empty for this machine."""


class Standing(NamedTuple):
    """The evidence on one metric: natural logarithms of e-values."""

    metric: str
    worse: float
    """That it is worse than tolerated."""

    proof: float | None
    """That it is good enough to go on; None where nothing is asked for."""


class Deadline(NamedTuple):
    """What happens when time is up."""

    left_s: float
    then: str


def names(target: Target) -> list[str]:
    """Return the names that have, or had, a rollout."""
    if not target.began:
        return []
    return [
        obj["metadata"]["name"]
        for obj in target.cluster.list(target.traffic.carrier)
        if acting.RECORD in obj["metadata"].get("annotations", {})
    ]


def read(target: Target, name: str) -> State:
    """Return the current or last rollout of a name.

    Raises:
        ConfigurationError: There never was one.
    """
    obj = target.cluster.get(target.traffic.carrier, name) if target.began else None
    record = acting.record_of(obj) if obj is not None else None
    if obj is None or record is None:
        raise unknown(name, names(target))
    now = time.time()
    return State(
        name=name,
        record=record,
        policy=acting.policy_of(obj),
        written=acting.policy_text(obj),
        routed=target.observed(name) or None,
        holder=held_by(target.cluster, name, now)[0],
        now=now,
        hint=target.hint,
        options=target.options,
    )


def chain(target: Target, name: str) -> str:
    """Return the chain of the record that a name carries; empty where there is none."""
    obj = target.cluster.get(target.traffic.carrier, name) if target.began else None
    record = acting.record_of(obj) if obj is not None else None
    return record.chain if record is not None else ""


def unknown(name: str, there: list[str]) -> ConfigurationError:
    """Return the error of a name without a rollout."""
    listed = f"there are: {', '.join(there)}" if there else "there is none yet"
    return ConfigurationError(
        f"no rollout of {name!r} there; {listed}",
        hint="penstock rollout status shows them"
        if there
        else "penstock run with another checkpoint of a name that is served begins one",
    )


def place(record: Record) -> str:
    """Return where a rollout is, in a word or two."""
    share = f" {record.weight} %" if record.phase in ("ramp", "soak") else ""
    held = f", held ({record.held})" if record.held else ""
    return f"{record.phase.replace('_', ' ')}{share}{held}"


def words(action: Mapping[str, Any]) -> str:
    """Return what was decided, and why; `action` as `events.told` has it."""
    reason = action["reason"]
    match action["do"]:
        case "shift":
            share = f" {action['weight']} %" if action["phase"] in ("ramp", "soak") else ""
            return f"{action['phase'].replace('_', ' ')}{share}: {reason}"
        case "hold":
            return f"held ({action['doubt']}): {reason}"
        case "resume":
            return f"goes on: {reason}"
        case "remove":
            return f"{action['service']} is removed"
        case _:
            return f"stays: {reason}"


def standings(record: Record, policy: Rollout) -> tuple[Setting, Verdict, list[Standing]]:
    """Return where the evidence counts now, what it says, and that of every metric."""
    judge = Judge(policy)
    verdict = judge.verdict(record.evidence)
    wanted, multiple = events.proving(record, policy)
    setting: Setting = wanted or ("live" if record.evidence.requests else "shadow")
    rows = []
    for name, margins in sorted(policy.metrics.items()):
        asked = wanted and wanted in margins.prove_in
        proof = verdict.proofs[wanted, multiple][name] if wanted and asked else None
        rows.append(Standing(name, verdict.blame[setting, name], proof))
    return setting, verdict, rows


def deadline(state: State) -> Deadline | None:
    """Return what happens when, unless something happens before; None where nothing will."""
    record, policy = state.record, state.policy
    limits, goes = policy.deadlines, "it is rolled back"
    unproven = "it is held" if policy.inconclusive == "hold" else goes
    if record.held:
        return Deadline(record.held_at + limits.held_s - state.now, goes)
    proves = events.proving(record, policy)[0]
    ends: dict[str, tuple[float, str]] = {
        "deploying": (policy.ready_within_s, goes),
        "warmup": (limits.warmup_s, goes),
        "shadow": (limits.shadow_s, unproven),
        "ramp": (limits.step_s, unproven) if proves else (policy.soak_s, "it goes on"),
        "soak": (policy.soak_s, "it is promoted"),
        "rolling_back": (ROLLBACK_S, "a person must look"),
    }
    if record.phase not in ends:
        return None
    lasts_s, then = ends[record.phase]
    return Deadline(record.entered_at + lasts_s - state.now, then)


def next_step(state: State) -> str:
    """Return what to type next."""
    name, record = f"{state.name}{state.options}", state.record
    if record.over:
        return f"penstock rollout certificate write {name}"
    if not state.holder:
        return f"penstock controller{state.options} (nobody looks after this rollout)"
    if record.phase == "rollback_blocked":
        return f"{state.hint} (traffic does not leave the candidate)"
    steps = {
        "": f"penstock rollout watch {name}",
        "paused": f"penstock rollout resume {name}",
        "edited": f"penstock rollout resume {name} (sets the weights again), or rollback {name}",
        "inconclusive": f"penstock rollout promote {name}, or rollback {name}: the evidence may "
        "never come",
        "doubt": f"penstock rollout rollback {name}, unless you find what disturbs the comparison",
        "stale": f"{state.hint} (evidence needs traffic, and versions that are ready)",
    }
    return steps[record.held]


def document(state: State) -> dict[str, Any]:
    """Return a rollout for programs; e-values are numbers, times seconds since the epoch."""
    record, policy = state.record, state.policy
    setting, verdict, rows = standings(record, policy)
    due = deadline(state)
    return {
        "name": state.name,
        "candidate": record.candidate,
        "stable": record.stable,
        "phase": record.phase,
        "held": record.held,
        "reason": record.reason,
        "command": record.command,
        "weights": acting.weights(record),
        "routed": None if state.routed is None else dict(state.routed),
        "pairs": record.evidence.pairs,
        "requests": record.evidence.requests,
        "setting": setting,
        "rollback": e_value(verdict.rollback),
        "bounds": {"rollback": 1 / policy.false_rollback, "proof": 1 / policy.missed},
        "evidence": {
            row.metric: {
                "worse": e_value(row.worse),
                "proof": None if row.proof is None else e_value(row.proof),
            }
            for row in rows
        },
        "started_at": record.started_at,
        "entered_at": record.entered_at,
        "left_s": None if due is None else due.left_s,
        "then": None if due is None else due.then,
        "holder": state.holder or None,
        "next": next_step(state),
    }


def lines(state: State) -> Iterator[str]:
    """Yield a rollout for people."""
    record, policy = state.record, state.policy
    yield f"{state.name}: {place(record)}, {record.candidate} against {record.stable}"
    yield f"  reason     {record.reason}"
    if record.command:
        yield f"  asked for  {record.command}, not done yet"
    yield f"  weights    {shares(acting.weights(record))}; routed: {_routed(state)}"
    setting, verdict, rows = standings(record, policy)
    yield f"  evidence   {counted(record)}"
    demand = bound(policy, "rollback")
    yield f"  rollback   {told(verdict.rollback)} over all metrics, {demand} demand it"
    yield f"  {setting:<9}  {'':<12} {'worse':>9}  {'proof':>9}"
    for row in rows:
        yield f"  {'':<9}  {row.metric:<12} {told(row.worse):>9}  {_proof(row, policy):>9}"
    due = deadline(state)
    if due is not None:
        yield f"  time left  {span(due.left_s)}, then {due.then}"
    if not record.over:
        yield f"  owner      {state.holder or 'nobody'}"
    yield f"  next       {next_step(state)}"


def shares(weights: Mapping[str, int]) -> str:
    """Return weights for people."""
    return ", ".join(f"{service} {share} %" for service, share in sorted(weights.items()))


def counted(record: Record) -> str:
    """Return how much evidence there is."""
    seen = record.evidence
    return f"{seen.pairs:,} pairs, {seen.requests:,} live requests that the candidate answered"


def bound(policy: Rollout, purpose: str) -> str:
    """Return the e-value that is enough: for a `rollback`, or for a proof."""
    return f"{1 / (policy.false_rollback if purpose == 'rollback' else policy.missed):,.0f}"


def e_value(log: float) -> float:
    """Return an e-value from its logarithm; one beyond all floats is the largest of them."""
    return math.exp(min(log, _LARGEST_LOG))


def span(seconds: float) -> str:
    """Return a length of time for people: 42 s, 12 min 5 s, 1 h 58 min."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def _proof(row: Standing, policy: Rollout) -> str:
    return "-" if row.proof is None else f"{told(row.proof)} of {bound(policy, 'proof')}"


def _routed(state: State) -> str:
    if state.routed is None:
        return "not known, the gateway does not answer"
    same = dict(state.routed) == acting.weights(state.record)
    return "the same" if same else shares(state.routed)


def held_by(cluster: Cluster, name: str, now: float) -> tuple[str, str]:
    """Return who holds the lease of a rollout, and when it was renewed; empty when it ran out."""
    found = cluster.get("Lease", lease.name_of(name))
    if found is None:
        return "", ""
    renewed = str(found["spec"]["renewTime"])
    if now - datetime.fromisoformat(renewed).timestamp() >= DURATION_S:
        return "", renewed
    return str(found["spec"]["holderIdentity"]), renewed
