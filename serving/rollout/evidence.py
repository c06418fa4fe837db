"""What was seen of two versions, in whole numbers: the same on every machine, and small to keep.

Latencies are buckets of 5 % width, scores are steps of 1/200. A batch is what one look brought,
with the cursor that says how far its source was read.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]

BUCKET_RATIO = 1.05
SHORTEST_S = 0.0005
BUCKETS = 256
"""0.5 ms to 126 s; what is slower counts in the last bucket."""

SCORE_STEPS = 200
"""A score from 0 to 1 is kept as a whole number of these."""

_LOG_RATIO = math.log(BUCKET_RATIO)


def bucket_of(seconds: float) -> int:
    """Return the bucket of a latency, 0 to `BUCKETS - 1`; bucket i begins at `bound_of(i)`."""
    if seconds <= SHORTEST_S:
        return 0
    return min(BUCKETS - 1, int(math.log(seconds / SHORTEST_S) / _LOG_RATIO))


def bound_of(bucket: int) -> float:
    """Return where a bucket begins, in seconds."""
    return SHORTEST_S * float(BUCKET_RATIO**bucket)


def buckets_in(ratio: float) -> int:
    """Return how many buckets slower `ratio` times as slow is, at least; `ratio` ≥ 1."""
    return math.ceil(math.log(ratio) / _LOG_RATIO - 1e-9)


def buckets_within(ratio: float) -> int:
    """Return how many buckets slower stay within `ratio` times as slow; `ratio` ≥ 1."""
    return math.floor(math.log(ratio) / _LOG_RATIO + 1e-9)


def score_steps(score: float) -> int:
    """Return a score from 0 to 1 in steps, the nearest."""
    return round(min(1.0, max(0.0, score)) * SCORE_STEPS)


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """The same prompts, answered by both versions under the same load; no user saw the candidate's.

    Every array has a row per prompt; column 0 is the candidate, column 1 the stable version.
    """

    errors: Ints
    """(n, 2), 1 where it gave no answer: refused, broke off, or did not come."""

    latency: Mapping[str, Ints] = field(default_factory=dict)
    """Metric (`ttft_p95`, `tpot_p95`) → (n, 2) buckets; -1 where it is undefined."""

    scores: Mapping[str, Ints] = field(default_factory=dict)
    """Metric (`quality`) → (n, 2) steps; -1 where nothing scored it."""

    def __len__(self) -> int:
        """Return the number of prompts."""
        return len(self.errors)


@dataclass(frozen=True, slots=True, eq=False)
class Arm:
    """What a version did with its share of the live requests, since the cursor before."""

    requests: int = 0
    errors: int = 0
    latency: Mapping[str, Ints] = field(default_factory=dict)
    """Metric → (BUCKETS,) requests per bucket."""

    scores: Mapping[str, Ints] = field(default_factory=dict)
    """Metric → (SCORE_STEPS + 1,) scored requests per step."""

    draws: int = 0
    """How often the split chose this version: once for a conversation, which then stays, however
    many requests it makes."""


NO_PAIRS = Pairs(np.zeros((0, 2), dtype=np.int64))
NO_REQUESTS = Arm()


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """What one look brought: evidence that nobody counted before."""

    pairs: Pairs = NO_PAIRS
    candidate: Arm = NO_REQUESTS
    stable: Arm = NO_REQUESTS
    control: tuple[Arm, Arm] = (NO_REQUESTS, NO_REQUESTS)
    """The stable version's own replicas, in two halves: a difference between them is no one's
    fault, so it measures what the comparison mistakes for a fault."""

    cursors: Mapping[str, str] = field(default_factory=dict)
    """Source → how far it was read; committed together with what the batch proves."""

    torn: bool = False
    """Whether a version lost a process meanwhile, or had none: what was counted then proves
    nothing, and nobody watched."""

    @property
    def size(self) -> int:
        """Observations of the candidate: pairs, and live requests."""
        return len(self.pairs) + self.candidate.requests
