"""What a rollout sees: objects, what really routes, replays, and live counters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

from penstock.core.errors import ServingError
from penstock.core.spec import Rollout
from serving.cluster import Cluster
from serving.controller import weights
from serving.doors import Doors
from serving.manifests import ready
from serving.rollout.decide import Seen
from serving.rollout.evidence import Arm, Batch
from serving.rollout.record import Record
from serving.rollout.step import LIVE
from serving.sources.live import Counters
from serving.sources.replay import Load, PairedReplayer, Prompt, Versions
from serving.sources.scores import ScoreHook
from serving.traffic import Traffic

REPLAY = "replay"
"""Source of pairs; its cursor is the place in the order of prompts."""

_WARM_UP_PROMPTS = 16
_FIRST_PROMPTS = 8
_LONGEST_REPLAY_S = 2.0
"""A look must not take long: people's commands wait for it, and so does the lease."""


class Place(NamedTuple):
    """Where a model is served."""

    cluster: Cluster
    traffic: Traffic
    """How traffic is split there."""

    name: str
    doors: Doors
    routed: Callable[[], Mapping[str, int]]
    """Returns the weights in force; empty while they are not known."""

    counters: Callable[[str, str], Counters]
    """Returns what counts users' requests of a candidate and a stable version."""

    why: Callable[[str], str] = lambda _service: ""
    """Returns what keeps a version's processes from serving; empty when nothing is known."""

    replaced: Callable[[str], bool] = lambda _service: False
    """Returns whether somebody took a version's processes away, and others start in their place."""


class ObservedWorld:
    """A `World` for one rollout.

    Args:
        place: Where the model is served.
        policy: How fast to replay.
        prompts: What to replay; none leaves shadow without evidence.
        load: How prompts are sent.
        clock: Seconds since the epoch.
    """

    def __init__(
        self,
        place: Place,
        policy: Rollout,
        prompts: list[Prompt],
        load: Load,
        clock: Callable[[], float],
    ) -> None:
        self._place, self._policy, self._clock = place, policy, clock
        self._prompts, self._load = prompts, load
        self._warm: set[str] = set()
        self._replayed_at: float | None = None
        self._prompt_s = 1.0
        """How long a prompt took, the last time."""

        self._replayers: dict[str, PairedReplayer] = {}
        self._counters: dict[str, Counters] = {}

    def seen(self, record: Record) -> Seen:
        """Return readiness, what really routes, and the time."""
        cluster = self._place.cluster
        candidate = cluster.get(self._place.traffic.served, record.candidate)
        stable = cluster.get(self._place.traffic.served, record.stable)
        is_ready, why = ready(candidate) if candidate is not None else (False, "it was deleted")
        if candidate is not None and not is_ready:
            why = self._place.why(record.candidate) or why
        routed = dict(self._place.routed()) or None
        # before the route knows it, what names it would reach whoever serves users
        reached = routed is not None and record.candidate in routed
        return Seen(
            now=self._clock(),
            ready=is_ready,
            why="" if is_ready else why,
            warm=record.phase == "warmup" and is_ready and reached and self._warmed(record),
            routed=routed,
            candidate_exists=candidate is not None,
            stable_exists=stable is not None,
            contents={
                obj["metadata"]["name"]: self._place.traffic.content(obj)
                for obj in (candidate, stable)
                if obj is not None
            },
            exhausted=record.phase == "shadow"
            and self._replayer(record).exhausted((record.cursors or {}).get(REPLAY)),
        )

    def evidence(self, record: Record, seen: Seen) -> Batch:
        """Return pairs in shadow and counters on the ramp; nothing from a source that is down."""
        try:
            match record.phase:
                case "shadow":
                    return self._replay(record, seen.now)
                case "ramp" if seen.routed == weights(record):
                    return self._count(record)
                case _:
                    return Batch()
        except ServingError:
            return Batch()  # missing data is no evidence, neither way

    def close(self) -> None:
        """End the connections."""
        for counters in self._counters.values():
            counters.close()

    def _replay(self, record: Record, now: float) -> Batch:
        cursor = (record.cursors or {}).get(REPLAY)
        count = self._due(now)
        if not count:
            return Batch()
        begun = self._clock()
        pairs, after = self._replayer(record).replay(cursor, count)
        self._prompt_s = max(1e-4, (self._clock() - begun) / count)
        return Batch(pairs=pairs, cursors={REPLAY: after}) if after != (cursor or "") else Batch()

    def _due(self, now: float) -> int:
        """Return how many prompts to send now: as fast as asked for, and as the answers come."""
        if self._replayed_at is None:
            self._replayed_at = now
            return _FIRST_PROMPTS
        since = min(now - self._replayed_at, _LONGEST_REPLAY_S)
        count = int(self._policy.replay_rps * since)
        if count:
            self._replayed_at = now
        return min(count, max(1, int(_LONGEST_REPLAY_S / self._prompt_s)))

    def _count(self, record: Record) -> Batch:
        versions = f"{record.candidate} {record.stable}"
        if versions not in self._counters:
            self._counters[versions] = self._place.counters(record.candidate, record.stable)
        before = (record.cursors or {}).get(LIVE)
        read = self._counters[versions].read(before)
        known = read.met or read.torn
        if before is not None and not known and not _anything(read.candidate, read.stable):
            return Batch()
        return Batch(
            candidate=read.candidate,
            stable=read.stable,
            control=read.control,
            cursors={LIVE: read.cursor},
            torn=read.torn,
        )

    def _warmed(self, record: Record) -> bool:
        """Let both versions answer a few prompts; what comes of it is no evidence."""
        if record.candidate not in self._warm:
            try:
                self._replayer(record).replay(None, _WARM_UP_PROMPTS)
            except ServingError:
                return False
            self._warm.add(record.candidate)
        return True

    def _replayer(self, record: Record) -> PairedReplayer:
        versions = f"{record.candidate} {record.stable}"
        if versions not in self._replayers:
            place = self._place
            self._replayers[versions] = PairedReplayer(
                Versions(place.doors, place.name, record.candidate, record.stable),
                self._prompts,
                seed=int(record.started_at),
                load=self._load,
                hooks={
                    name: ScoreHook(margins.webhook)
                    for name, margins in self._policy.metrics.items()
                    if margins.webhook
                },
                replaced=partial(place.replaced, record.candidate),
            )
        return self._replayers[versions]


def _anything(*arms: Arm) -> bool:
    """Return whether there is something to count: requests, or scores that came later."""
    return any(arm.requests or any(s.any() for s in arm.scores.values()) for arm in arms)
