"""Judges a set of items whose size was settled beforehand: looked at once, when all are answered.

Accepts by Tango's score interval (`components.guard.comparison`); refuses by exact sign tests, of
the total and, Holm-adjusted, of every slice.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence

from components.guard.comparison import Pairs, interval
from components.guard.items import Judged, Tally, tally
from components.guard.measures import Measure
from components.guard.multiplicity import holm, lost_slices, sign_p
from components.guard.verdict import (
    FALSE_REFUSE,
    Decision,
    Figures,
    Outcome,
    Verdict,
    conclude,
    tells_loss,
)

WANTED_POWER = 0.95
"""As sure as both errors are rare: a set sized for less would miss more than it may err."""
MOST_ITEMS = 100_000


def judge(items: Sequence[Judged], *, margin: float, measures: Sequence[Measure] = ()) -> Verdict:
    """Return the verdict on a fixed set of items.

    Args:
        items: All of them, answered by both; see `items.pair_up`.
        margin: Share of right answers that may be lost; the spec's `evaluation.max_quality_loss`.
        measures: How far the distributions are apart; beyond a limit they refuse by themselves.
    """
    counted = tally(items)
    total = counted.total
    low, high = interval(total)
    figures = Figures(
        form="fixed",
        available=len(items),
        low=low,
        high=high,
        power=power(total.n, total.gained + total.lost, margin),
        advice=_advice(total, margin),
    )
    return conclude(
        decide(counted, margin),
        total,
        dict(counted.slices),
        margin=margin,
        measures=measures,
        figures=figures,
    )


def decide(counted: Tally, margin: float) -> Decision:
    """Return what a fixed set of items says, without power and words."""
    names = list(counted.slices)
    adjusted = dict(
        zip(names, holm([sign_p(p.gained, p.lost) for p in counted.slices.values()]), strict=True)
    )
    lost = lost_slices(counted.slices, adjusted, alpha=FALSE_REFUSE / 2, margin=margin)
    total = counted.total
    outcome: Outcome = "insufficient"
    if lost:
        outcome = "refuse"
    elif accepts(total, margin):
        outcome = "accept"
    elif sign_p(total.gained, total.lost) <= FALSE_REFUSE / 2 and tells_loss(total, margin):
        outcome = "refuse"
    return Decision(outcome, lost, adjusted)


def accepts(total: Pairs, margin: float) -> bool:
    """Return whether a loss of the margin is excluded."""
    return interval(total)[0] >= -margin


def power(n: int, changed: int, margin: float) -> float:
    """Return the chance that an equal version is accepted on `n` items, by the total alone.

    Equal: every item may change with chance `changed / n`, and gains are as likely as losses.
    Exact but for changes so rare or so many that their chance is below 1e-6.
    """
    if n == 0:
        return 0.0
    total = 0.0
    most_lost: int | None = None
    for k, chance in _binomial(n, changed / n):
        most_lost = _most_lost(n, k, margin, near=most_lost)
        if most_lost >= 0:
            # as many or fewer losses; gains and losses mirror each other
            total += chance * sign_p(most_lost, k - most_lost)
    return total


def _most_lost(n: int, changed: int, margin: float, *, near: int | None) -> int:
    """Return the most losses among the changes that are accepted; -1: not even none."""

    def accepted(lost: int) -> bool:
        return accepts(Pairs(n, changed - lost, lost), margin)

    if near is None:
        return bisect.bisect_left(range(changed + 1), x=True, key=lambda k: not accepted(k)) - 1
    lost = near  # of one change fewer: a step away at most
    while lost < changed and accepted(lost + 1):
        lost += 1
    while lost >= 0 and not accepted(lost):
        lost -= 1
    return lost


def _binomial(n: int, p: float) -> list[tuple[int, float]]:
    if p in (0.0, 1.0):
        return [(round(n * p), 1.0)]
    half = 5 * math.sqrt(n * p * (1 - p)) + 12
    found = []
    for k in range(max(0, math.floor(n * p - half)), min(n, math.ceil(n * p + half)) + 1):
        log = math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
        found.append((k, math.exp(log + k * math.log(p) + (n - k) * math.log1p(-p))))
    return found


def items_needed(n: int, changed: int, margin: float) -> int | None:
    """Return about how many items give an equal version a chance of `WANTED_POWER`, or None.

    Args:
        n: Items seen, of which `changed` changed; more items are taken to change as often.
        changed: Items that only one version got right.
        margin: The loss to exclude.
    """
    count = max(n, 1)
    while count <= MOST_ITEMS:
        if power(count, round(changed * count / max(n, 1)), margin) >= WANTED_POWER:
            return count
        count = math.ceil(count * 1.5)
    return None


def _advice(total: Pairs, margin: float) -> str:
    if total.n == 0:
        return ": there are none"
    needed = items_needed(total.n, total.gained + total.lost, margin)
    if needed is None or needed <= total.n:
        return ""
    return f", with {needed} items one of {WANTED_POWER:.0%}"
