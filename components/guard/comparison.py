"""Is the new version no worse than the old one? Paired, on the same items; pure functions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any, Literal

Outcome = Literal["pass", "fail", "insufficient_items"]

Z_ONE_SIDED_95 = 1.6448536269514722


@dataclass(frozen=True, slots=True)
class Pairs:
    """How two versions did on the same items."""

    n: int
    gained: int
    """Right now, wrong before."""

    lost: int
    """Wrong now, right before."""

    @property
    def difference(self) -> float:
        """New share of right answers minus the old one."""
        return (self.gained - self.lost) / self.n if self.n else 0.0


@dataclass(frozen=True, slots=True)
class Comparison:
    """The answer, with its numbers."""

    outcome: Outcome
    reason: str
    n: int
    gained: int
    lost: int
    difference: float
    low: float
    high: float
    margin: float
    smallest_margin: float
    """The smallest loss that these items can exclude."""

    mcnemar_p: float

    def to_json(self) -> dict[str, Any]:
        """Return the fields."""
        return asdict(self)


def paired(old: Sequence[Mapping[str, Any]], new: Sequence[Mapping[str, Any]]) -> Pairs:
    """Count over the items that both versions answered: same id, same expected answer."""
    before = {(r["id"], r["expected"]): bool(r["correct"]) for r in old}
    both = [
        (before[key], bool(r["correct"]))
        for r in new
        if (key := (r["id"], r["expected"])) in before
    ]
    gained = sum(now and not was for was, now in both)
    lost = sum(was and not now for was, now in both)
    return Pairs(len(both), gained, lost)


def compare(pairs: Pairs, margin: float) -> Comparison:
    """Test non-inferiority: is the loss below `margin`, with 95 % one-sided confidence?

    `pass` when the lower bound of the difference is above `-margin`; `fail` when the upper bound
    is below it; otherwise the items do not suffice, and the smallest margin they can show is told.
    """
    low, high = interval(pairs)
    outcome: Outcome
    if low >= -margin:
        outcome, reason = "pass", f"a loss of more than {-min(low, 0):.2%} is excluded"
    elif high < -margin:
        outcome, reason = "fail", f"it loses at least {-high:.2%}, more than {margin:.2%}"
    else:
        outcome = "insufficient_items"
        reason = f"{pairs.n} items can exclude a loss of {-low:.2%}, not of {margin:.2%}"
    return Comparison(
        outcome=outcome,
        reason=reason,
        n=pairs.n,
        gained=pairs.gained,
        lost=pairs.lost,
        difference=pairs.difference,
        low=low,
        high=high,
        margin=margin,
        smallest_margin=max(0.0, -low),
        mcnemar_p=mcnemar(pairs),
    )


def mcnemar(pairs: Pairs) -> float:
    """Return the exact two-sided p-value of "gains and losses are equally likely".

    Source: McNemar, Psychometrika 12 (1947), 153-157; the binomial form.
    """
    n, k = pairs.gained + pairs.lost, min(pairs.gained, pairs.lost)
    tail = sum(math.comb(n, i) for i in range(k + 1))
    # a fraction of integers: the powers alone would overflow a float
    return float(min(Fraction(1), Fraction(2 * tail, 2**n)))


def interval(pairs: Pairs, z: float = Z_ONE_SIDED_95) -> tuple[float, float]:
    """Return Tango's score interval of the difference; it stays honest when nothing changed.

    Without discordant items its half-width is z²/(n + z²), not 0. (-1, 1) for no items.

    Source: Tango, Statistics in Medicine 17 (1998), 891-908.
    """
    if pairs.n == 0:
        return -1.0, 1.0
    middle = pairs.difference
    low = _root(pairs, z, -1.0, middle)
    high = _root(pairs, -z, middle, 1.0)
    return low, high


def _root(pairs: Pairs, target: float, below: float, above: float) -> float:
    """Bisect for the difference at which the score statistic, which falls, meets the target."""
    for _ in range(60):
        middle = (below + above) / 2
        if _score(pairs, middle) > target:
            below = middle
        else:
            above = middle
    return (below + above) / 2


def _score(pairs: Pairs, delta: float) -> float:
    n, b, c = pairs.n, pairs.gained, pairs.lost
    half = (2 * n - b + c) * delta - b - c
    root = math.sqrt(max(0.0, half * half + 8 * n * c * delta * (1 - delta)))
    q = (root - half) / (4 * n)
    variance = n * (2 * q + delta * (1 - delta))
    distance = b - c - n * delta
    if variance <= 0:
        return math.copysign(math.inf, distance) if distance else 0.0
    return distance / math.sqrt(variance)
