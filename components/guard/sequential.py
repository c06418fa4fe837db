"""Judges items as they are answered, and stops as soon as it knows: for items that cost.

Every item moves e-processes (`serving.rollout.eprocess`): one against "the candidate loses the
margin or more", whose end at 1/FALSE_ACCEPT accepts; one against "it loses nothing", which refuses
when it got so far that a version that loses nothing gets there with a chance of FALSE_REFUSE/2; and
one of the latter per slice, by Holm's rule on these chances. An e-process under its null reaches
1/alpha with a chance of at most alpha (Ville, 1939); of the second kind the chance is computed, see
`reaching`. Both hold however often one looks, so it may stop at any batch: what they yield are
p-values at every stopping time.

What is judged is the population that the items are a sample of, as in the fixed form; so that they
are not put back after they were drawn changes nothing, and with the last item nothing is certain.

Distances of distributions cost a forward pass, no answers: they are measured first, and when they
refuse nothing is asked at all.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from fractions import Fraction

import numpy as np

from components.guard.comparison import Pairs
from components.guard.items import NOTHING, Judged, Tally, tally
from components.guard.measures import Measure
from components.guard.multiplicity import counts, holm, loss_evidence, lost_slices, safety_evidence
from components.guard.reaching import chance_of_reaching
from components.guard.verdict import (
    FALSE_ACCEPT,
    FALSE_REFUSE,
    Decision,
    Figures,
    Outcome,
    Verdict,
    conclude,
    refused_before,
    tells_loss,
)

BATCH = 5
"""Items between two looks: half of them, on average, are asked in vain."""

PATHS = 1000
GRID = 1e-4
"""Steps in which margins are told."""


def judge_as_answered(
    identities: Sequence[str],
    ask: Callable[[Sequence[str]], Sequence[Judged]],
    *,
    margin: float,
    measures: Sequence[Measure] = (),
    seed: int = 0,
    batch: int = BATCH,
) -> Verdict:
    """Ask for items in a seeded random order, until the verdict is known or none is left.

    Args:
        identities: Every item there is, by id.
        ask: Has a batch of items answered by both versions.
        margin: Share of right answers that may be lost; the spec's `evaluation.max_quality_loss`.
        measures: How far the distributions are apart; beyond a limit nothing is asked.
        seed: Of the order; the same seed and ids give the same order anywhere.
        batch: Items asked at a time.
    """
    order = shuffled(identities, seed)
    counted = NOTHING
    decision = decide(counted, margin)
    if not refused_before(measures):
        for start in range(0, len(order), batch):
            counted = tally(ask(order[start : start + batch]), counted)
            decision = decide(counted, margin)
            if decision.outcome != "insufficient":
                break
    total = counted.total
    low, high = bounds(total)
    figures = Figures(
        form="sequential",
        available=len(order),
        low=low,
        high=high,
        power=power(len(order), total, margin, batch=batch),
        advice=", and there are no more" if order else ": there are none",
    )
    return conclude(
        decision,
        total,
        dict(counted.slices),
        margin=margin,
        measures=measures,
        figures=figures,
    )


def decide(counted: Tally, margin: float) -> Decision:
    """Return what the items so far say; `insufficient` means: go on."""
    total, names = counted.total, list(counted.slices)
    *slices, loss = loss_evidence(counts([*counted.slices.values(), total]))
    adjusted = dict(zip(names, holm([chance_of_reaching(log) for log in slices]), strict=True))
    lost = lost_slices(counted.slices, adjusted, alpha=FALSE_REFUSE / 2, margin=margin)
    (safe,) = safety_evidence(counts([total]), _exact(margin))
    outcome: Outcome = "insufficient"
    if lost:
        outcome = "refuse"
    elif safe >= -math.log(FALSE_ACCEPT):
        outcome = "accept"
    elif chance_of_reaching(loss) <= FALSE_REFUSE / 2 and tells_loss(total, margin):
        outcome = "refuse"
    return Decision(outcome, lost, adjusted)


def shuffled(identities: Sequence[str], seed: int) -> list[str]:
    """Return the ids in an order that depends on nothing but the seed and the ids."""
    return sorted(identities, key=lambda i: hashlib.sha256(f"{seed} {i}".encode()).digest())


def bounds(total: Pairs) -> tuple[float, float]:
    """Return anytime-valid 95 % one-sided bounds of the difference, on a grid of `GRID`."""
    mirrored = Pairs(total.n, total.lost, total.gained)
    return -_most_lost(total), _most_lost(mirrored)


def _most_lost(total: Pairs) -> float:
    """Return the smallest loss that is excluded; below 0 where it gained for certain."""
    steps = round(1 / GRID)
    low, high = -steps, steps
    while high - low > 1:
        middle = (low + high) // 2
        (safe,) = safety_evidence(counts([total]), Fraction(middle, steps))
        if safe >= -math.log(FALSE_ACCEPT):
            high = middle
        else:
            low = middle
    return high * GRID


def power(available: int, total: Pairs, margin: float, *, batch: int = BATCH) -> float:
    """Return the chance that an equal version is accepted within the items, by the total alone.

    Equal: as often changed as seen, gains as likely as losses. Simulated on `PATHS` seeded paths;
    the standard error is at most 1.6 points.
    """
    if available == 0 or total.n == 0:
        return 0.0
    changed = (total.gained + total.lost) / total.n
    looks = [min(batch, available - start) for start in range(0, available, batch)]
    chances = [changed / 2, 1 - changed, changed / 2]
    generator = np.random.default_rng(0)
    seen = np.zeros((PATHS, 3), dtype=np.int64)
    for size in looks:
        seen += generator.multinomial(size, chances, len(seen))
        evidence = np.array(safety_evidence(seen, _exact(margin)))
        seen = seen[evidence < -math.log(FALSE_ACCEPT)]
        if not len(seen):
            break
    return 1 - len(seen) / PATHS


def _exact(margin: float) -> Fraction:
    return Fraction(str(margin))
