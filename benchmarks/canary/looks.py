"""What the rollout engine sees of the world: one batch of evidence per replication and tick.

A failed request has neither latency nor score, as in the gateway's log.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from benchmarks.canary.model import buckets
from benchmarks.canary.outcomes import Bools, Floats
from benchmarks.canary.world import TICK_S, Side, World
from serving.rollout.evidence import (
    BUCKETS,
    NO_PAIRS,
    NO_REQUESTS,
    SCORE_STEPS,
    Arm,
    Batch,
    Ints,
    Pairs,
)


@dataclass(frozen=True, slots=True, eq=False)
class Look:
    """What one tick brought, per replication."""

    batches: list[Batch]
    """Evidence; without cursors, which whoever drives the engine sets."""

    exposed: Ints
    """Users' requests that the candidate served."""

    replayed: Ints
    """Extra inference calls: one per mirrored request, two per replayed prompt."""


def look(
    world: World,
    *,
    weight: Floats,
    mirror: Floats,
    replay_rps: Floats,
    idle: bool = False,
) -> Look:
    """Draw the tick that the world advanced to.

    Args:
        world: After `advance()`, by one tick.
        weight: The candidate's share of live requests, 0 to 1, per replication; the stable version
            serves the rest.
        mirror: Share of live requests mirrored to the candidate, 0 to 1, per replication.
        replay_rps: Prompts per second replayed to both, per replication.
        idle: Whether the stable version's live requests are drawn where the weight is 0.
    """
    mirrored = world.arrivals(mirror)[:, 0]
    replayed = world.rng.poisson(TICK_S * replay_rps)
    pairs = _pairs(world, mirrored + replayed)
    served = world.arrivals(weight)[:, 0]
    seen = np.ones(world.reps, dtype=np.bool_) if idle else weight > 0
    stable = np.where(seen, world.arrivals(1.0 - weight)[:, 0], 0)
    candidates = _arms(world, "candidate", served)
    stables = _arms(world, "stable", stable)
    control = world.scenario.env != "armdrift"  # a single replica has no halves
    batches = [
        Batch(
            pairs=pair,
            candidate=candidate[2],
            stable=both[2],
            control=both[:2] if control else (NO_REQUESTS, NO_REQUESTS),
        )
        for pair, candidate, both in zip(pairs, candidates, stables, strict=True)
    ]
    return Look(batches, served, mirrored + 2 * replayed)


def _pairs(world: World, counts: Ints) -> list[Pairs]:
    """Return prompts that both versions answered, per replication."""
    if not counts.any():
        return [NO_PAIRS] * world.reps
    both = world.pairs(counts)
    errors = np.stack([answers.failed for answers in both], axis=1).astype(np.int64)
    ttft = np.stack([_known(buckets(answers.ttft), answers.failed) for answers in both], axis=1)
    tpot = np.stack([_known(buckets(answers.tpot), answers.failed) for answers in both], axis=1)
    steps = [_known(answers.scores.astype(np.int64), answers.failed) for answers in both]
    quality = np.stack(steps, axis=1)
    ends = np.cumsum(counts).tolist()
    return [
        Pairs(
            errors[start:end],
            latency={"ttft_p95": ttft[start:end], "tpot_p95": tpot[start:end]},
            scores={"quality": quality[start:end]},
        )
        if end > start
        else NO_PAIRS
        for start, end in zip([0, *ends], ends, strict=False)
    ]


def _known(values: Ints, failed: Bools) -> Ints:
    """Return the values, and -1 where the request failed; changes them in place."""
    values[failed] = -1
    return values


def _arms(world: World, side: Side, counts: Ints) -> list[tuple[Arm, Arm, Arm]]:
    """Return what a version did, per replication: by halves of its replicas, and together."""
    if not counts.any():
        return [(NO_REQUESTS, NO_REQUESTS, NO_REQUESTS)] * world.reps
    drawn = world.halves(side, counts)
    half = np.repeat(np.arange(2 * world.reps), drawn.counts.ravel())
    answered = ~drawn.failed
    errors = np.bincount(half[drawn.failed], minlength=2 * world.reps).reshape(-1, 2)
    half = half[answered]
    ttft = _histograms(half, buckets(drawn.ttft[answered]), BUCKETS, world.reps)
    tpot = _histograms(half, buckets(drawn.tpot[answered]), BUCKETS, world.reps)
    steps = drawn.scores[answered].astype(np.int64)
    quality = _histograms(half, steps, SCORE_STEPS + 1, world.reps)
    requests = np.column_stack([drawn.counts, counts]).tolist()
    failed = np.column_stack([errors, errors.sum(axis=1)]).tolist()
    return [
        _three(requests[rep], failed[rep], (ttft[rep], tpot[rep], quality[rep]))
        if requests[rep][2]
        else (NO_REQUESTS, NO_REQUESTS, NO_REQUESTS)
        for rep in range(world.reps)
    ]


def _three(
    requests: list[int], errors: list[int], histograms: tuple[Ints, Ints, Ints]
) -> tuple[Arm, Arm, Arm]:
    """Return two halves of a version's requests, and both together."""
    ttft, tpot, quality = histograms
    first, second, both = (
        Arm(
            requests[part],
            errors[part],
            {"ttft_p95": ttft[part], "tpot_p95": tpot[part]},
            {"quality": quality[part]},
            draws=requests[part],
        )
        for part in range(3)
    )
    return first, second, both


def _histograms(half: Ints, values: Ints, width: int, reps: int) -> npt.NDArray[np.int64]:
    """Return (replications, 3, width) counts: of two halves, and of both together."""
    counted = np.bincount(half * width + values, minlength=2 * reps * width)
    halves = counted.reshape(reps, 2, width)
    return np.concatenate([halves, halves.sum(axis=1, keepdims=True)], axis=1)
