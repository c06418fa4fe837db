"""One look at a rollout, from what is recorded and observed to what is recorded and done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple, assert_never

from serving.rollout.decide import Action, Hold, Remove, Resume, Seen, Shift, Stay, next_action
from serving.rollout.evidence import Batch
from serving.rollout.judge import Judge, Verdict
from serving.rollout.record import NOT_KEPT, Record

LIVE = "live"
"""Source of live counters; its cursor starts anew whenever the weight changes."""


class Step(NamedTuple):
    """What a look led to."""

    record: Record
    action: Action
    verdict: Verdict


def step(record: Record, batch: Batch, seen: Seen, judge: Judge) -> Step:
    """Return the next record and the action that led to it; nothing outside is looked at.

    Args:
        record: As read.
        batch: Evidence since `record.cursors`; the record that comes back has the cursors after.
        seen: What was observed beside it.
        judge: The policy's tests.
    """
    if batch.size or batch.cursors:
        counts = not batch.torn
        record = replace(
            record,
            evidence=judge.add(record.evidence, batch, record.weight)
            if counts
            else record.evidence,
            cursors={**(record.cursors or {}), **batch.cursors},
            evidence_at=seen.now if counts and batch.size else record.evidence_at,
            arrived=record.arrived + batch.candidate.requests + batch.stable.requests,
        )
    record = _settled(record, batch, seen)
    if unknown := seen.contents.keys() - (record.contents or {}).keys():
        first = {name: seen.contents[name] for name in sorted(unknown)}
        record = replace(record, contents={**(record.contents or {}), **first})
    verdict = judge.verdict(record.evidence)
    action = next_action(record, verdict, seen, judge)
    return Step(_apply(record, action, seen.now), action, verdict)


def _settled(record: Record, batch: Batch, seen: Seen) -> Record:
    """Note since when users meet the weight, and until when they were watched at it."""
    if record.settled_at == NOT_KEPT:
        return record
    if batch.torn:
        return replace(record, settled_at=0.0)  # to be watched anew
    read = LIVE in batch.cursors
    in_force = (seen.routed or {}).get(record.candidate) == record.weight
    begins = in_force and (read or record.phase == "soak") and record.settled_at == 0
    return replace(
        record,
        settled_at=seen.now if begins else record.settled_at,
        read_at=seen.now if read else record.read_at,
    )


def _apply(record: Record, action: Action, now: float) -> Record:
    match action:
        case Stay() | Remove():
            return record
        case Shift(phase, weight, reason, index):
            return replace(
                record,
                phase=phase,
                step=index,
                weight=weight,
                reason=reason,
                entered_at=now,
                held="",
                held_at=0.0,
                command="",
                arrived=0,
                settled_at=min(record.settled_at, 0.0),  # which keeps NOT_KEPT
                cursors=_without(record.cursors, LIVE),  # what came before was at another weight
            )
        case Hold(doubt, reason):
            return replace(record, held=doubt, held_at=now, reason=reason, command="")
        case Resume(reason):
            return replace(
                record,
                held="",
                held_at=0.0,
                reason=reason,
                command="",
                settled_at=min(record.settled_at, 0.0),
                cursors=_without(record.cursors, LIVE),  # what came meanwhile was held
            )
        case _:
            assert_never(action)


def _without(cursors: Mapping[str, str] | None, source: str) -> dict[str, str]:
    return {name: at for name, at in (cursors or {}).items() if name != source}
