"""How likely evidence of loss is, anywhere on the way, of a version that loses nothing.

Ville's inequality says: to ever reach E = e^s has a chance of at most e^-s. It gives away what the
last bet wins beyond s (Wald's overshoot): a quarter of a nat where a loss multiplies the wealth by
1.9. Here that chance is computed, so that the wrong verdicts promised are also used:

1. Given when answers change, and everything before, each change is a loss with a chance of at
   most 1/2 under "it loses nothing". Evidence stays where it is while nothing changes, so it is a
   walk on (changes, losses).
2. A loss in place of a gain raises the evidence there and ever after. So whoever reaches s with
   chances below 1/2 reaches it, with the same coin flips, with 1/2 as well: the fair coin is the
   worst case, and its chance of reaching s within `_CHANGES` changes is a sum over the walk.
3. From where the walk is then, Ville's inequality holds again: e^(evidence - s) bounds the chance
   of ever reaching s later. So the sum holds for every number of items, and at whichever batch one
   looks or stops.

Of the evidence's values, the chance is a p-value that is valid at every stopping time.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from components.guard.comparison import Pairs
from components.guard.multiplicity import counts, loss_evidence

_CHANGES = 256
_ROUNDING = 1 + 1e-8
"""Evidence is rounded down to 1e-9; a sum of some ten thousand floats is exact by far."""


@lru_cache(maxsize=65536)
def chance_of_reaching(evidence: float) -> float:
    """Return the chance, at most, that a version that loses nothing ever gets as much evidence.

    Args:
        evidence: The logarithm, as `multiplicity.loss_evidence` returns it.
    """
    if evidence <= 0:
        return 1.0  # everybody starts there
    seen = _evidence()
    alive, reached = np.ones(1), 0.0
    for changes in range(1, _CHANGES + 1):
        alive = (np.append(alive, 0.0) + np.append(0.0, alive)) / 2
        there = seen[changes] >= evidence
        reached += float(alive[there].sum())
        alive[there] = 0.0
    later = float(alive @ np.exp(seen[_CHANGES] - evidence))
    return min(1.0, math.exp(-evidence), (reached + later) * _ROUNDING)


@lru_cache(maxsize=1)
def _evidence() -> list[NDArray[np.float64]]:
    """Return, after so many changes, the evidence for every number of losses among them."""
    return [
        np.array(loss_evidence(counts([Pairs(k, k - lost, lost) for lost in range(k + 1)])))
        for k in range(_CHANGES + 1)
    ]
