"""A world for rollouts: evidence from a fixed stream, a clock to set, traffic as the route says."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from serving.cluster import Cluster
from serving.controller import LOCAL, weights
from serving.manifests import route, weights_of
from serving.rollout.decide import Seen
from serving.rollout.evidence import BUCKETS, Arm, Batch, Ints, Pairs
from serving.rollout.record import Record
from serving.rollout.step import LIVE

NAME, STABLE, CANDIDATE = "m", "m-v1", "m-v2"


def services(cluster: Cluster) -> None:
    """Serve version 1, and have version 2 beside it."""
    for name in (STABLE, CANDIDATE):
        cluster.create({"kind": "InferenceService", "metadata": {"name": name}, "spec": {}})
    cluster.create(route(NAME, {STABLE: 100}))


class StreamWorld:
    """Evidence by position: the n-th pair and the n-th live request are always the same.

    Args:
        cluster: Where the traffic is read back from.
        wrong: Share of requests that the candidate fails, (in shadow, live).
        pairs: Pairs per look.
        requests: Live requests per look.
    """

    def __init__(
        self,
        cluster: Cluster,
        wrong: tuple[float, float] = (0.0, 0.0),
        *,
        pairs: int = 200,
        requests: int = 400,
    ) -> None:
        self.cluster, self.wrong, self.pairs, self.requests = cluster, wrong, pairs, requests
        self.now = 1000.0
        self.ready = True
        self.silent = False
        self.routes = True
        """Whether traffic follows what is written."""

    def seen(self, record: Record) -> Seen:
        obj = self.cluster.get("HTTPRoute", NAME)
        routed = weights_of(obj) if obj is not None and self.routes else None
        there = {name: self.cluster.get("InferenceService", name) for name in (STABLE, CANDIDATE)}
        return Seen(
            self.now,
            self.ready,
            "loading",
            self.ready,
            routed,
            candidate_exists=there[CANDIDATE] is not None,
            stable_exists=there[STABLE] is not None,
            contents={n: LOCAL.content(obj) for n, obj in there.items() if obj is not None},
        )

    def evidence(self, record: Record, seen: Seen) -> Batch:
        cursors: Mapping[str, str] = record.cursors or {}
        if self.silent:
            return Batch()
        if record.phase == "shadow":
            at = int(cursors.get("replay", "0"))
            return Batch(pairs=self._pairs(at), cursors={"replay": str(at + self.pairs)})
        if record.phase == "ramp" and seen.routed == weights(record):
            if LIVE not in cursors:
                return Batch(cursors={LIVE: f"{record.step}:0"})
            at = int(cursors[LIVE].partition(":")[2])
            return self._live(record, at)
        return Batch()

    def _pairs(self, at: int) -> Pairs:
        rng = np.random.default_rng([1, at])
        errors = (rng.random((self.pairs, 2)) < [self.wrong[0], 0.0]).astype(np.int64)
        latency = rng.integers(80, 120, (self.pairs, 2))
        return Pairs(
            errors,
            {"ttft_p95": latency, "tpot_p95": latency[::-1] - 40},
            {"quality": (rng.random((self.pairs, 2)) < 0.9).astype(np.int64) * 200},
        )

    def _live(self, record: Record, at: int) -> Batch:
        rng = np.random.default_rng([2, record.step, at])
        share = self.requests * record.weight // 100
        return Batch(
            candidate=_arm(rng, share, self.wrong[1]),
            stable=_arm(rng, self.requests - share, 0.0),
            cursors={LIVE: f"{record.step}:{at + self.requests}"},
        )


def _arm(rng: np.random.Generator, requests: int, wrong: float) -> Arm:
    def seconds(shift: int) -> Ints:
        return np.bincount(rng.integers(80, 120, requests) - shift, minlength=BUCKETS)

    errors = int((rng.random(requests) < wrong).sum())
    latency = {"ttft_p95": seconds(0), "tpot_p95": seconds(40)}
    return Arm(requests, errors, latency, draws=requests)
