"""What is bet on: which x each observation is, and how often each was seen.

Every x is written so that its mean is at most 0 under the null.

Paired, x is a difference on one prompt. Live, a candidate's request contributes f(c) and one of the
stable version -r·f(b), where r is the candidate's share of traffic over the stable version's: over
many requests the two balance, so that the sum of means is the difference.

Latencies are judged by exceedances: P(c > u·(1 + margin)) against P(b > u), where u is the stable
version's 95th percentile as known before the batch. Margins become whole buckets, rounded to the
side that keeps the guarantee.

Source: Howard and Ramdas, Bernoulli 28 (2022), for quantiles by exceedance; facts of the rollout
simulations for the choice of tests.
"""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from serving.rollout.eprocess import factors
from serving.rollout.evidence import BUCKETS, SCORE_STEPS, Arm, Ints

HALF = Fraction(1, 2)


class Bet(NamedTuple):
    """Observations of one test."""

    counts: Ints
    """(values,) how often each x was seen."""

    table: Ints
    """(values, BETS) what one of each adds to the log-wealth."""


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


def paired_sign(pairs: Ints, margin: Fraction) -> Bet:
    """Return bets on c - b + margin, for 0/1 outcomes: (n, 2), the candidate first."""
    difference = pairs[:, 0] - pairs[:, 1]
    up, down = int((difference > 0).sum()), int((difference < 0).sum())
    return Bet(np.array([down, len(pairs) - up - down, up]), _paired_sign(margin))


@lru_cache
def _paired_sign(margin: Fraction) -> Ints:
    return factors((margin - 1, margin, margin + 1))


def paired_scores(scores: Ints, margin: Fraction) -> Bet:
    """Return bets on c - b + margin, for scores in steps: (n, 2), the candidate first."""
    counts = np.bincount(scores[:, 0] - scores[:, 1] + SCORE_STEPS, minlength=2 * SCORE_STEPS + 1)
    return Bet(counts, _paired_scores(margin))


@lru_cache
def _paired_scores(margin: Fraction) -> Ints:
    return factors(_grid(-SCORE_STEPS, margin))


def live_sign(candidate: Ints, stable: Ints, margin: Fraction, ratio: Fraction) -> Bet:
    """Return bets on f(c) + margin and -r·f(b), for 0/1 outcomes.

    Args:
        candidate: Counts of (0, 1).
        stable: Counts of (0, 1).
        margin: Added to every request of the candidate.
        ratio: r, the candidate's share over the stable version's.
    """
    counts = np.array([candidate[0], candidate[1], stable[1]])
    return Bet(counts, _live(margin, margin + 1, -ratio))


def live_sign_below(candidate: Ints, stable: Ints, margin: Fraction, ratio: Fraction) -> Bet:
    """Return bets on -f(c) + margin and +r·f(b), for 0/1 outcomes."""
    counts = np.array([candidate[0], candidate[1], stable[1]])
    return Bet(counts, _live(margin, margin - 1, ratio))


@lru_cache
def _live(zero: Fraction, one: Fraction, other: Fraction) -> Ints:
    return factors((zero, one, other))


def live_scores(candidate: Ints, stable: Ints, margin: Fraction, ratio: Fraction) -> Bet:
    """Return bets on f(c) - ½ + margin and -r·(f(b) - ½), for (SCORE_STEPS + 1,) counts."""
    return Bet(np.concatenate([candidate, stable]), _live_scores(margin, ratio))


@lru_cache
def _live_scores(margin: Fraction, ratio: Fraction) -> Ints:
    return factors((*_grid(0, margin - HALF), *(-ratio * x for x in _grid(0, -HALF))))


def exceeding(histogram: Ints, bucket: int) -> Ints:
    """Return the counts (not slower, slower) than a bucket."""
    slower = int(histogram[max(0, bucket + 1) :].sum())
    return np.array([int(histogram.sum()) - slower, slower])


def pairs_exceeding(buckets: Ints, candidate: int, stable: int) -> Ints:
    """Return 0/1 per prompt and version: slower than its bucket; (n, 2), the candidate first."""
    return (buckets > np.array([candidate, stable])).astype(np.int64)


def ranked(histogram: Ints, scale: Scale, faster: int) -> Ints:
    """Return a histogram of latencies as (SCORE_STEPS + 1,) counts of ranks.

    Args:
        histogram: (BUCKETS,) counts.
        scale: What the ranks are in.
        faster: Buckets by which the latencies are taken to be faster.
    """
    seen = np.flatnonzero(histogram)
    ranks = scale.ranks[np.maximum(seen - faster, 0)]
    return np.bincount(ranks, histogram[seen], SCORE_STEPS + 1).astype(np.int64)


def pairs_ranked(buckets: Ints, scale: Scale, faster: int) -> Ints:
    """Return the ranks of (n, 2) latencies; the candidate's are taken to be faster."""
    moved = np.clip(buckets - np.array([faster, 0]), 0, BUCKETS - 1)
    ranks: Ints = scale.ranks[moved]
    return ranks


def defined(pairs: Ints) -> Ints:
    """Return the rows in which both versions have a value."""
    both: Ints = pairs[(pairs >= 0).all(axis=1)]
    return both


def failures(arm: Arm) -> Ints:
    """Return the counts (answered, failed)."""
    return np.array([arm.requests - arm.errors, arm.errors])


def _grid(start: int, margin: Fraction) -> tuple[Fraction, ...]:
    return tuple(Fraction(n, SCORE_STEPS) + margin for n in range(start, SCORE_STEPS + 1))
