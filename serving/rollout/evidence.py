"""What was seen of two versions, in whole numbers: the same on every machine, and small to keep.

Latencies are buckets of 5 % width, scores are steps of 1/200. A batch is what one look brought,
with the cursor that says how far its source was read.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

BUCKET_RATIO = 1.05
SHORTEST_S = 0.0005
BUCKETS = 256
"""0.5 ms to 126 s; what is slower counts in the last bucket."""

SCORE_STEPS = 200
"""A score from 0 to 1 is kept as a whole number of these."""

_LOG_RATIO = math.log(BUCKET_RATIO)
NOTHING: Mapping[Any, Any] = MappingProxyType({})


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


def score_steps(score: float) -> int:
    """Return a score from 0 to 1 in steps, the nearest."""
    return round(min(1.0, max(0.0, score)) * SCORE_STEPS)


@dataclass(frozen=True, slots=True)
class Sample:
    """How one version did with one prompt."""

    error: bool = False
    """It gave no answer: refused, broke off, or did not come."""

    latency: Mapping[str, int] = NOTHING
    """Bucket by metric (`ttft_p95`, `tpot_p95`); absent where it is undefined."""

    scores: Mapping[str, int] = NOTHING
    """Steps by metric (`quality`); absent where nothing scored it."""


@dataclass(frozen=True, slots=True)
class Pair:
    """The same prompt, answered by both versions under the same load."""

    candidate: Sample
    stable: Sample


@dataclass(frozen=True, slots=True)
class Arm:
    """What a version did with its share of the live requests, since the cursor before."""

    requests: int = 0
    errors: int = 0
    latency: Mapping[str, Mapping[int, int]] = field(default_factory=dict)
    """Metric → bucket → requests."""

    scores: Mapping[str, Mapping[int, int]] = field(default_factory=dict)
    """Metric → steps → requests that were scored."""


@dataclass(frozen=True, slots=True)
class Batch:
    """What one look brought: evidence that nobody counted before."""

    pairs: tuple[Pair, ...] = ()
    """From shadow and replay: no user saw the candidate's answer."""

    candidate: Arm = Arm()
    stable: Arm = Arm()
    control: tuple[Arm, Arm] = (Arm(), Arm())
    """The stable version's own replicas, in two halves: a difference between them is no one's
    fault, so it is the measure of what the comparison mistakes for a fault."""

    cursors: Mapping[str, str] = NOTHING
    """Source → how far it was read; committed together with what the batch proves."""

    @property
    def size(self) -> int:
        """Observations of the candidate: pairs, and live requests."""
        return len(self.pairs) + self.candidate.requests
