"""The event log's entries, and the certificate: a rollout to be replayed, decision by decision.

An event holds what a step took in; what came of it is computed again and compared. Each is hashed
with the one before (`Record.chain`), so that none can be left out, added or changed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from penstock.core.errors import ConfigurationError, DigestMismatch, LogCut
from penstock.core.spec import Rollout
from serving.rollout.decide import Action, Seen
from serving.rollout.evidence import BUCKETS, SCORE_STEPS, Arm, Batch, Ints, Pairs
from serving.rollout.judge import PROOF_IN_SHADOW, Judge, Setting
from serving.rollout.record import Doubt, Phase, Record, dense, digest_of, link, sparse
from serving.rollout.step import step

FORMAT = "penstock.rollout/v1"
_HELD_IN: tuple[Phase, ...] = ("shadow", "ramp")
_NO_PROOF: tuple[Doubt, ...] = ("stale", "doubt", "inconclusive")


@dataclass(frozen=True, slots=True)
class Replayed:
    """One event of a certificate, decided again."""

    kind: str
    now: float
    """Seconds since the epoch; 0 for what has no time."""

    record: Record
    """After the event."""

    action: Mapping[str, Any]


def started(record: Record) -> str:
    """Return the event of a rollout's beginning."""
    return _text({"kind": "start", "record": json.loads(record.to_json())})


def looked(batch: Batch, seen: Seen, action: Action) -> str:
    """Return the event of a look: what it decided by, and what it decided."""
    return _text(
        {"kind": "look", "batch": _plain(batch), "seen": _fields(seen), "action": told(action)}
    )


def changed(**fields: object) -> str:
    """Return the event of a change that no evidence decided: of the owner, or by a command."""
    return _text({"kind": "change", "fields": fields})


def told(action: Action) -> dict[str, Any]:
    """Return an action as a document."""
    return {"do": type(action).__name__.lower(), **_fields(action)}


def line(before: str, event: str) -> str:
    """Return the line of the log for an event that follows the chain `before`."""
    return _text({"before": before, "event": event})


def lineage(chain: str, lines: Iterable[str]) -> list[str]:
    """Return the events a chain is made of, the first one first; others were never committed."""
    known: dict[str, tuple[str, str]] = {}
    for text in lines:
        body = json.loads(text)
        known[link(body["before"], body["event"])] = (body["before"], body["event"])
    found: list[str] = []
    while chain:
        if chain not in known:
            raise LogCut(
                f"the event log does not lead to the record: nothing is linked to {chain[:12]}",
                hint="the log was cut or changed; without it the rollout cannot be proven",
            )
        chain, event = known[chain]
        found.append(event)
    return found[::-1]


def chains(lines: Iterable[str], head: str = "") -> list[list[str]]:
    """Return the events of every rollout in a log, the rollout that began first first.

    An event that lost its write leads nowhere, while its rival was followed by others: what leads
    furthest counts, and of two that lead equally far the later one.

    Args:
        lines: Of the log.
        head: The chain of the record that is there now; what leads to it is preferred, since it
            was committed for certain.
    """
    known: dict[str, tuple[str, str]] = {}
    places: dict[str, tuple[str, int]] = {}
    ends: dict[str, str] = {}
    for text in lines:
        body = json.loads(text)
        before, event = body["before"], body["event"]
        chain = link(before, event)
        first, depth = places.get(before, ("" if before else chain, 0))
        if not first:
            continue  # what it followed is not in the log
        known[chain], places[chain] = (before, event), (first, depth + 1)
        if depth + 1 >= places[ends.setdefault(first, chain)][1]:
            ends[first] = chain
    if head in places:
        ends[places[head][0]] = head
    return [_path(chain, known) for chain in ends.values()]


def proving(record: Record, policy: Rollout) -> tuple[Setting | Literal[""], float]:
    """Return where metrics must prove themselves now, and what multiple of `reject` they exclude.

    The setting is empty in a phase that asks for no proof.
    """
    if record.phase == "ramp" and record.step < len(policy.proof):
        return "live", policy.proof[record.step]
    return ("shadow", PROOF_IN_SHADOW) if record.phase == "shadow" else ("", 0.0)


def certificate(policy: str, last: Record, lines: Iterable[str]) -> str:
    """Return the document that proves how a rollout was decided.

    Args:
        policy: JSON, as it was written when the rollout began.
        last: The record in the end.
        lines: The event log; more may be in it.
    """
    body = {
        "format": FORMAT,
        "policy": json.loads(policy),
        "events": [json.loads(event) for event in lineage(last.chain, lines)],
        "last": json.loads(last.to_json()),
    }
    return json.dumps(body, indent=1) + "\n"


def verify(text: str) -> list[Replayed]:
    """Decide every step of a certificate again and return them.

    Raises:
        DigestMismatch: A decision, or the record in the end, is another one.
        ConfigurationError: It is no certificate.
    """
    try:
        body: dict[str, Any] = json.loads(text)
        if body["format"] != FORMAT:
            raise ValueError(f"format {body['format']!r}, not {FORMAT!r}")
        policy = Rollout.model_validate(body["policy"])
        last = Record.from_json(json.dumps(body["last"]))
        replayed = list(_replay(Judge(policy), body["events"]))
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as problem:
        raise ConfigurationError(f"not a certificate: {problem}") from problem
    if last.policy != digest_of(json.dumps(body["policy"])):
        raise DigestMismatch("the certificate's policy is not the one the rollout was decided by")
    if not replayed or replayed[-1].record.to_json() != last.to_json():
        raise DigestMismatch("replaying the events does not lead to the record in the end")
    return replayed


def undecided(replayed: Iterable[Replayed]) -> bool:
    """Return whether a rollout was given up because no proof came: held for too long."""
    last = next((r.record for r in reversed([*replayed]) if r.record.phase in _HELD_IN), None)
    return last is not None and last.held in _NO_PROOF and not last.command


def _path(chain: str, known: Mapping[str, tuple[str, str]]) -> list[str]:
    """Return the events that lead to a chain, the first one first."""
    found: list[str] = []
    while chain:
        chain, event = known[chain]
        found.append(event)
    return found[::-1]


def _replay(judge: Judge, events: list[dict[str, Any]]) -> Iterator[Replayed]:
    record: Record | None = None
    for number, event in enumerate(events):
        now, action = 0.0, event.get("action", {})
        if event["kind"] == "start":
            after = Record.from_json(json.dumps(event["record"]))
            before = after
        elif record is None:
            raise ValueError("the first event is not the start")
        elif event["kind"] == "change":
            before, after = record, replace(record, **event["fields"])
        else:
            seen = Seen(**event["seen"])
            made = step(record, _batch(event["batch"]), seen, judge)
            before, after, now = record, made.record, seen.now
            if told(made.action) != action:
                raise DigestMismatch(
                    f"event {number} was decided as {action}, replaying gives {told(made.action)}"
                )
        record = replace(after, chain=before.chain, seq=before.seq).linked(_text(event))
        yield Replayed(event["kind"], now, record, action)


def _fields(value: Seen | Action) -> dict[str, Any]:
    """Return the fields of a flat value; `dataclasses.asdict` copies deeply, and takes longer."""
    return {name: getattr(value, name) for name in value.__dataclass_fields__}


def _text(body: Mapping[str, Any]) -> str:
    return json.dumps(body, separators=(",", ":"), sort_keys=True)


def _plain(batch: Batch) -> dict[str, Any]:
    return {
        "pairs": {
            "errors": batch.pairs.errors.tolist(),
            "latency": {name: rows.tolist() for name, rows in batch.pairs.latency.items()},
            "scores": {name: rows.tolist() for name, rows in batch.pairs.scores.items()},
        },
        "arms": [_plain_arm(arm) for arm in (batch.candidate, batch.stable, *batch.control)],
        "cursors": dict(batch.cursors),
        **({"torn": True} if batch.torn else {}),
    }


def _plain_arm(arm: Arm) -> dict[str, Any]:
    return {
        "requests": arm.requests,
        "errors": arm.errors,
        "latency": {name: sparse(counts) for name, counts in arm.latency.items()},
        "scores": {name: sparse(counts) for name, counts in arm.scores.items()},
        "draws": arm.draws,
    }


def _batch(body: Mapping[str, Any]) -> Batch:
    pairs = body["pairs"]
    candidate, stable, one, other = (_arm(arm) for arm in body["arms"])
    return Batch(
        pairs=Pairs(
            _rows(pairs["errors"]),
            {name: _rows(rows) for name, rows in pairs["latency"].items()},
            {name: _rows(rows) for name, rows in pairs["scores"].items()},
        ),
        candidate=candidate,
        stable=stable,
        control=(one, other),
        cursors=body["cursors"],
        torn=body.get("torn", False),
    )


def _arm(body: Mapping[str, Any]) -> Arm:
    return Arm(
        body["requests"],
        body["errors"],
        {name: dense(counts, BUCKETS) for name, counts in body["latency"].items()},
        {name: dense(counts, SCORE_STEPS + 1) for name, counts in body["scores"].items()},
        body["draws"],
    )


def _rows(rows: list[list[int]]) -> Ints:
    return np.array(rows, dtype=np.int64).reshape(-1, 2)
