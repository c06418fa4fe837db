"""Pairs scores of live answers, whose numbers per version nobody controls.

Errors and latencies come from every request, so their numbers follow the split. Scores come for a
few answers, chosen by whoever scores, perhaps more for one version than for the other. So they are
compared in pairs, each of the candidate's with one of the stable version's: the mean difference is
then the same however many were scored of either. What has no partner waits for one.
"""

from __future__ import annotations

import numpy as np

from serving.rollout.evidence import Ints

MOST_WAITING = 200
"""Newest scores of one version that wait; older ones are too old to be compared."""

Waiting = tuple[Ints, Ints]
"""Steps of the candidate and of the stable version, the oldest first; one of them is empty."""

NOBODY: Waiting = (np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64))


def match(waiting: Waiting, candidate: Ints, stable: Ints, salt: int) -> tuple[Ints, Waiting]:
    """Return (n, 2) steps of pairs, and who waits now.

    Args:
        waiting: From the times before.
        candidate: New scores per step; empty if there are none.
        stable: Likewise.
        salt: A number that no score depends on.
    """
    sides = [
        np.concatenate([before, _in_any_order(counts, salt)])
        for before, counts in zip(waiting, (candidate, stable), strict=True)
    ]
    count = min(map(len, sides))
    pairs = np.stack([side[:count] for side in sides], axis=1)
    one, other = (side[count:][-MOST_WAITING:] for side in sides)
    return pairs, (one, other)


def _in_any_order(counts: Ints, salt: int) -> Ints:
    """Return the steps of a histogram, in an order that does not depend on them.

    Sorted, they would be paired by size, and pairs would not be independent. The order is that of
    an integer hash (splitmix64; Steele, Lea and Flood, OOPSLA 2014): the same on every machine.
    """
    steps = np.repeat(np.arange(len(counts)), counts)
    mixed = np.arange(len(steps), dtype=np.uint64) + np.uint64(salt)
    mixed *= np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return steps[np.argsort(mixed ^ (mixed >> np.uint64(31)), kind="stable")]
