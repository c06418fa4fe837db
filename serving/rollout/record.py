"""What survives a restart: one document, written together with the traffic weights it explains."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np

from penstock.core.errors import ConfigurationError
from penstock.core.spec import Rollout
from serving.rollout.evidence import BUCKETS, Ints
from serving.rollout.judge import Evidence, Judge

Phase = Literal[
    "deploying",
    "warmup",
    "shadow",
    "ramp",
    "soak",
    "promoted",
    "rolling_back",
    "rollback_blocked",
    "rolled_back",
]
Doubt = Literal["", "paused", "edited", "stale", "doubt", "inconclusive"]
Command = Literal["", "pause", "resume", "promote", "rollback", "abandon"]
OVER: tuple[Phase, ...] = ("promoted", "rolled_back")
NOT_KEPT = -1.0
"""Of a rollout that began before this was kept: its time counts from `entered_at`, so that what it
decided can still be replayed."""


@dataclass(frozen=True, slots=True, eq=False)
class Record:
    """A rollout, as far as it got. Times are seconds since the epoch."""

    candidate: str
    """InferenceService of the new version."""

    stable: str
    """InferenceService of the version that is served."""

    policy: str
    """Digest of the policy: another policy is another rollout."""

    evidence: Evidence
    phase: Phase = "deploying"
    step: int = 0
    """Index into `steps`, in phase ramp."""

    weight: int = 0
    """The candidate's share of live traffic, in percent."""

    started_at: float = 0.0
    entered_at: float = 0.0
    """When the phase, or the step of the ramp, began; its deadline counts from here."""

    evidence_at: float = 0.0
    """When evidence came last."""

    arrived: int = 0
    """Live requests of both versions since the step of the ramp began."""

    settled_at: float = NOT_KEPT
    """When its weight was first seen in force, and on the ramp counted from; 0: not yet."""

    read_at: float = 0.0
    """When the live counters were read last, whatever they said."""

    held: Doubt = ""
    """Why it is held; empty when it is not."""

    held_at: float = 0.0
    reason: str = "it was asked for"
    """Why it is where it is, in a sentence."""

    command: Command = ""
    """What a person, or the end of a run, asked for, until it is done."""

    epoch: int = 1
    """Grows with every owner; a writer of an older epoch has lost."""

    owner: str = ""
    seq: int = 0
    """Events so far."""

    chain: str = ""
    """SHA-256 over all events, each hashed with the one before."""

    cursors: Mapping[str, str] | None = None
    """Source → how far it was read into the evidence."""

    contents: Mapping[str, str] | None = None
    """Version's object → what tells its content, as this rollout saw it first."""

    def watched_s(self, until: float) -> float:
        """Return for how long its weight had been in force at a time, in seconds."""
        if self.settled_at == NOT_KEPT:
            return until - self.entered_at
        return max(0.0, until - self.settled_at) if self.settled_at else 0.0

    @property
    def over(self) -> bool:
        """Whether nothing can happen any more."""
        return self.phase in OVER

    def to_json(self) -> str:
        """Return the document; `Record.from_json(r.to_json()).to_json() == r.to_json()`."""
        body = {name: getattr(self, name) for name in _PLAIN}
        body["cursors"] = dict(self.cursors or {})
        body["evidence"] = _plain(self.evidence)
        return json.dumps(body, separators=(",", ":"), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Record:
        """Read a document; `ConfigurationError` says it is none."""
        try:
            body: dict[str, Any] = json.loads(text)
            if body["phase"] not in get_args(Phase):
                raise ValueError(f"unknown phase {body['phase']!r}")
            return cls(**{**body, "evidence": _evidence(body["evidence"])})
        except (ValueError, KeyError, TypeError) as problem:
            raise ConfigurationError(
                f"not the record of a rollout: {problem}",
                hint="it was written by another version of Penstock, or by hand",
            ) from problem

    def linked(self, event: str) -> Record:
        """Return the record with an event added to its chain."""
        return replace(self, seq=self.seq + 1, chain=link(self.chain, event))


_PLAIN = tuple(name for name in Record.__dataclass_fields__ if name not in ("evidence", "cursors"))


def first_record(candidate: str, stable: str, policy: Rollout, now: float) -> Record:
    """Return the record of a rollout that begins now, in seconds since the epoch."""
    evidence = Judge(policy).start()
    digest = digest_of(policy.model_dump_json())
    return Record(
        candidate, stable, digest, evidence, started_at=now, entered_at=now, settled_at=0.0
    )


def link(chain: str, event: str) -> str:
    """Return the chain with an event added."""
    return hashlib.sha256(f"{chain}\n{event}".encode()).hexdigest()


def digest_of(policy: str) -> str:
    """Return the digest of a policy, as JSON that says everything a decision depends on.

    Of what was written when the rollout began, not of what is understood now: a later Penstock
    knows more fields, and goes on with a rollout that an earlier one began.
    """
    return hashlib.sha256(json.dumps(json.loads(policy), sort_keys=True).encode()).hexdigest()


def sparse(counts: Ints) -> dict[str, int]:
    """Return an array's non-zero entries, by index."""
    seen = np.flatnonzero(counts)
    return dict(zip(map(str, seen.tolist()), counts[seen].tolist(), strict=True))


def dense(entries: Mapping[str, int], size: int) -> Ints:
    """Return the array that `sparse` was made from."""
    counts = np.zeros(size, dtype=np.int64)
    for index, count in entries.items():
        counts[int(index)] = count
    return counts


def _plain(evidence: Evidence) -> dict[str, Any]:
    return {
        "wealth": evidence.wealth.tolist(),
        "split": evidence.split.tolist(),
        "control": evidence.control.tolist(),
        "history": {key: sparse(counts) for key, counts in sorted(evidence.history.items())},
        "waiting": {
            key: [steps.tolist() for steps in sides]
            for key, sides in sorted(evidence.waiting.items())
        },
        "pairs": evidence.pairs,
        "requests": evidence.requests,
    }


def _evidence(body: Mapping[str, Any]) -> Evidence:
    arrays = {key: np.array(body[key], dtype=np.int64) for key in ("wealth", "split", "control")}
    history = {key: dense(counts, BUCKETS) for key, counts in body["history"].items()}
    waiting = {
        key: (np.array(one, dtype=np.int64), np.array(other, dtype=np.int64))
        for key, (one, other) in body["waiting"].items()
    }
    return Evidence(
        **arrays, history=history, waiting=waiting, pairs=body["pairs"], requests=body["requests"]
    )
