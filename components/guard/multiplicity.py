"""Many slices, few false alarms: which slices lost, at a chance of 5 % or less to name a sound one.

The null of a slice is "gains and losses are equally likely, or losses less so". A slice is named
only if, besides, it lost more than the margin: with enough items even a trifle is significant.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from functools import lru_cache

import numpy as np

from components.guard.comparison import Pairs
from components.guard.items import Slice
from serving.rollout.bets import signs
from serving.rollout.eprocess import BETS, UNIT, log_evidence
from serving.rollout.evidence import Ints


class _Mixture:
    """Some of the bets, each with its share of the stake: what a wrong one gets is lost."""

    def __init__(self, shares: Mapping[str, float]) -> None:
        self._bets = [BETS.index(Fraction(bet)) for bet in shares]
        # the mean over bets gives all the same: what each gets more or less is put in beforehand
        logs = [math.log(len(shares) * share) for share in shares.values()]
        self._ahead = np.array([math.floor(log * UNIT) for log in logs])

    def log_evidence(self, counted: Ints, table: Ints) -> list[float]:
        return log_evidence(counted @ table[:, self._bets] + self._ahead)


# what rounding spoils it hardly mends elsewhere: of few changes most are losses, or noise
_LOSS = _Mixture({"0.22": 0.10, "0.4": 0.05, "0.65": 0.15, "0.95": 0.70})
# an equal version changes little; the fewer changes, the larger the best bet
_SAFETY = _Mixture({"0.11": 0.10, "0.22": 0.10, "0.4": 0.15, "0.65": 0.15, "0.95": 0.50})

_MOST_EXACT = 5000


@lru_cache(maxsize=65536)
def sign_p(gained: int, lost: int) -> float:
    """Return the chance of at least `lost` losses among these changes if gains are as likely.

    One-sided; 1 without a change. Exact up to `_MOST_EXACT` changes, then normal.

    Source: McNemar, Psychometrika 12 (1947), 153-157; the binomial form.
    """
    changed, tail, ways = gained + lost, 0, 1
    if changed > _MOST_EXACT:
        # lost beyond half of the changes, in standard deviations, corrected for continuity
        z = (lost - 0.5 - changed / 2) / math.sqrt(changed / 4)
        return math.erfc(z / math.sqrt(2)) / 2
    for k in range(gained + 1):
        tail += ways
        ways = ways * (changed - k) // (k + 1)
    # a fraction of integers: the powers alone would overflow a float
    return float(Fraction(tail, 2**changed))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return adjusted p-values, in order: those up to alpha are significant together.

    Source: Holm, Scandinavian Journal of Statistics 6 (1979), 65-70.
    """
    order = sorted(range(len(p_values)), key=lambda k: p_values[k])
    adjusted, floor = [0.0] * len(p_values), 0.0
    for rank, k in enumerate(order):
        floor = max(floor, min(1.0, p_values[k] * (len(p_values) - rank)))
        adjusted[k] = floor
    return adjusted


def counts(pairs: Sequence[Pairs]) -> Ints:
    """Return (n, 3): how many items were lost, stayed and were gained."""
    told = [(each.lost, each.n - each.lost - each.gained, each.gained) for each in pairs]
    return np.array(told, dtype=np.int64)


def loss_evidence(counted: Ints) -> list[float]:
    """Return ln of the e-values against "it loses nothing", for (n, 3) counts."""
    return _LOSS.log_evidence(counted, signs(Fraction(0), -1))


def safety_evidence(counted: Ints, margin: Fraction) -> list[float]:
    """Return ln of the e-values against "it loses `margin` or more", for (n, 3) counts."""
    return _SAFETY.log_evidence(counted, signs(margin, 1))


def lost_slices(
    slices: Mapping[Slice, Pairs], adjusted: Mapping[Slice, float], *, alpha: float, margin: float
) -> tuple[Slice, ...]:
    """Return the slices that lost significantly and more than the margin, worst first."""
    named = [
        name
        for name, pairs in slices.items()
        if adjusted[name] <= alpha and -pairs.difference > margin
    ]
    return tuple(sorted(named, key=lambda name: (slices[name].difference, name)))
