"""Kayenta's judgment of two time series: Mann-Whitney, as its `MannWhitneyClassifier` uses it."""

from __future__ import annotations

import math

import numpy as np

from benchmarks.canary.outcomes import Floats

Z_98 = 2.3263478740408408
"""Two-sided 98 %."""

TOLERANCE = 0.25


def worse(candidate: Floats, stable: Floats, *, higher_is_worse: bool) -> bool:
    """Return whether Kayenta calls a metric High (or Low, where low is bad).

    It does so when the 98 % confidence interval of the Hodges-Lehmann shift lies beyond a quarter
    of that shift, and the ratio of the means points the same way.

    Args:
        candidate: One value per minute; NaN, where there was no request, is removed.
        stable: The baseline's.
        higher_is_worse: Which direction is bad.
    """
    sign = 1.0 if higher_is_worse else -1.0
    ours = sign * candidate[~np.isnan(candidate)]
    theirs = sign * stable[~np.isnan(stable)]
    if not len(ours) or not len(theirs) or ours.mean() < theirs.mean():
        return False
    rank = _rank(ours, theirs)
    # the interval reaches 0 where so many differences do: most calls end here, without any
    if np.searchsorted(np.sort(theirs), ours, side="left").sum() < len(ours) * len(theirs) - rank:
        return False
    differences = (ours[:, None] - theirs[None, :]).ravel()
    middle = len(differences) // 2
    ordered = np.partition(differences, [rank, middle])
    return bool(ordered[rank] > TOLERANCE * abs(ordered[middle]))


def _rank(ours: Floats, theirs: Floats) -> int:
    """Return which of the ordered differences begins the interval; normal, corrected for ties."""
    m, n = len(ours), len(theirs)
    total = m + n
    _, ties = np.unique(np.concatenate([ours, theirs]), return_counts=True)
    correction = float((ties**3 - ties).sum()) / (total * (total - 1))
    deviation = math.sqrt(max(0.0, m * n / 12 * (total + 1 - correction)))
    return max(0, math.floor(m * n / 2 - Z_98 * deviation - 0.5))
