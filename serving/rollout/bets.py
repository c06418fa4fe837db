"""What is bet on: the values that an observation may have, and what each adds to the log-wealth.

Every x is written so that its mean is at most 0 under the null. Paired, x is a difference on one
prompt. Live, a candidate's request contributes f(c) and one of the stable version -r·f(b), where r
is the candidate's share of traffic over the stable version's: over many requests the two balance,
so that the sum of means is the difference.

Latencies are judged by exceedances: P(c > u·(1 + margin)) against P(b > u), where u is the stable
version's 95th percentile as known before the batch. Margins become whole buckets, rounded to the
side that keeps the guarantee. Source: Howard and Ramdas, Bernoulli 28 (2022), for quantiles by
exceedance.
"""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from serving.rollout.eprocess import factors
from serving.rollout.evidence import BUCKETS, SCORE_STEPS, Ints

HALF = Fraction(1, 2)
STEPS = SCORE_STEPS + 1


class Scale(NamedTuple):
    """How the stable version's latency looked before the batch; the bets may depend on it."""

    p95: int
    """Bucket: about 5 % of its requests were slower than this one."""

    ranks: Ints
    """(BUCKETS,) share of its requests that were faster than the bucket, plus half of those in it,
    in steps of 1/SCORE_STEPS."""


def scale_of(history: Ints) -> Scale:
    """Return the scale of a histogram of (BUCKETS,) counts, which is not empty."""
    below = np.cumsum(history)
    total = int(below[-1])
    p95 = int(np.searchsorted(below * 100, total * 95))
    ranks = (2 * below - history) * SCORE_STEPS // (2 * total)
    return Scale(p95, ranks)


@lru_cache
def signs(margin: Fraction, direction: int) -> Ints:
    """Return the table of direction·(c - b) + margin, for 0/1 outcomes; see `sign_counts`."""
    return factors([direction * sign + margin for sign in (-1, 0, 1)])


def sign_counts(candidate: Ints, stable: Ints) -> Ints:
    """Return how often c - b was -1, 0 and 1; one entry per prompt each."""
    return np.bincount(candidate - stable + 1, minlength=3)


@lru_cache
def differences(margin: Fraction, direction: int) -> Ints:
    """Return the table of direction·(c - b) + margin, for scores; see `difference_counts`."""
    grid = range(-SCORE_STEPS, STEPS)
    return factors([Fraction(direction * step, SCORE_STEPS) + margin for step in grid])


def difference_counts(candidate: Ints, stable: Ints) -> Ints:
    """Return how often c - b was each number of steps; one entry per prompt each."""
    return np.bincount(candidate - stable + SCORE_STEPS, minlength=2 * SCORE_STEPS + 1)


@lru_cache
def live_signs(margin: Fraction, direction: int, ratio: Fraction) -> Ints:
    """Return the table of direction·f(c) + margin and -direction·r·f(b), for 0/1 outcomes.

    Its rows: the candidate's 0, its 1, and the stable version's 1; see `live_sign_counts`.
    """
    return factors([margin, direction + margin, -direction * ratio])


def live_sign_counts(candidate: tuple[int, int], stable: tuple[int, int]) -> Ints:
    """Return how often the candidate was 0, was 1, and the stable version was 1."""
    return np.array([*candidate, stable[1]])


@lru_cache
def live_scores(margin: Fraction, direction: int, ratio: Fraction) -> Ints:
    """Return the table of direction·(f(c) - ½) + margin and -direction·r·(f(b) - ½), for scores.

    Its rows: every step of the candidate, and every step of the stable version.
    """
    grid = [direction * (Fraction(step, SCORE_STEPS) - HALF) for step in range(STEPS)]
    return factors([*(x + margin for x in grid), *(-ratio * x for x in grid)])


def beyond(histogram: Ints, bucket: int) -> tuple[int, int]:
    """Return how many latencies were within a bucket, and how many were slower."""
    slower = int(histogram[max(0, bucket + 1) :].sum())
    return int(histogram.sum()) - slower, slower


def ranked(histogram: Ints, scale: Scale, faster: int) -> Ints:
    """Return a histogram of latencies as (STEPS,) counts of ranks.

    Args:
        histogram: (BUCKETS,) counts.
        scale: What the ranks are in.
        faster: Buckets by which the latencies are taken to be faster.
    """
    seen = np.flatnonzero(histogram)
    ranks = scale.ranks[np.maximum(seen - faster, 0)]
    return np.bincount(ranks, histogram[seen], STEPS).astype(np.int64)


def ranks_of(buckets: Ints, scale: Scale, faster: int) -> Ints:
    """Return the rank of each latency, taken to be faster by some buckets."""
    ranks: Ints = scale.ranks[np.clip(buckets - faster, 0, BUCKETS - 1)]
    return ranks
