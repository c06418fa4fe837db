"""The tests of one metric: what is counted when both versions answered, and what is bet on it.

Two nulls. `ROLLBACK`: the candidate is worse by at most `tolerate`; its rejection is a reason to
roll back. A proof of multiple m: it is worse by m · `reject` or more; its rejection proves that it
is not. A latency is accused by its body and by its tail, and acquitted by its tail alone, so that
damage to few requests cannot hide behind the rest.

Tables follow from the policy, counts from a batch; their rows match.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from penstock.core.spec import Margins
from serving.rollout import bets
from serving.rollout.bets import Scale
from serving.rollout.evidence import Arm, Ints, Pairs, buckets_in, buckets_within

ROLLBACK = 0.0
"""The purpose of a test that accuses; a proof's purpose is its multiple of `reject`."""

_LARGEST = Fraction(99, 100)  # no share or score can be worse by a whole 1
_NONE = np.zeros(0, dtype=np.int64)
_ZERO = Fraction(0)


class Part(NamedTuple):
    """One test of a metric."""

    purpose: float
    what: str
    """What of the metric: `mean`, `body` or `tail`."""


Counted = Iterator[tuple[Part, Ints]]


class Comparison:
    """How one metric is compared.

    Args:
        name: Of the metric.
        margins: Its kind, and what a difference is worth.
        multiples: The proofs wanted.
    """

    def __init__(self, name: str, margins: Margins, multiples: Sequence[float]) -> None:
        self.name, self._kind = name, margins.kind
        self._tolerated = _exactly(margins.tolerate)
        self._rejected = {
            m: min(_LARGEST, _exactly(m) * _exactly(margins.reject)) for m in multiples
        }
        self._slower = buckets_in(1 + margins.tolerate)
        self._limits = {m: buckets_within(1 + m * margins.reject) for m in multiples}
        proven = "tail" if self._kind == "latency" else "mean"
        accused = ("body", "tail") if self._kind == "latency" else ("mean",)
        self.parts = [Part(ROLLBACK, what) for what in accused]
        self.parts += [Part(m, proven) for m in multiples]

    def paired_table(self, part: Part) -> Ints:
        """Return what pairs add to a test's log-wealth, per row of its counts."""
        margin, direction = self._bet(part)
        if self._kind == "score" or part.what == "body":
            return bets.differences(margin, direction)
        return bets.signs(margin, direction)

    def live_table(self, part: Part, ratio: Fraction) -> Ints:
        """Return what live requests add to a test's log-wealth, per row of its counts.

        Args:
            part: Of `parts`.
            ratio: The candidate's share of traffic over the stable version's.
        """
        margin, direction = self._bet(part)
        if part.what == "body":
            return bets.live_scores(margin, direction, ratio)
        return bets.live_signs(margin, direction, ratio)

    def pairs(self, pairs: Pairs, scale: Scale | None) -> Counted:
        """Yield each test's counts of prompts that both versions answered."""
        match self._kind:
            case "errors":
                counts = bets.sign_counts(pairs.errors[:, 0], pairs.errors[:, 1])
                yield from ((part, counts) for part in self.parts)
            case "score" if self.name in pairs.scores:
                counts = bets.difference_counts(*_defined(pairs.scores[self.name]))
                yield from ((part, counts) for part in self.parts)
            case "latency" if self.name in pairs.latency and scale is not None:
                yield from self._paired_latency(*_defined(pairs.latency[self.name]), scale)
            case _:  # not measured: no bet
                return

    def live(self, candidate: Arm, stable: Arm, scale: Scale | None) -> Counted:
        """Yield each test's counts of live requests, each answered by one of the versions."""
        match self._kind:
            case "errors":
                arms = [(arm.requests - arm.errors, arm.errors) for arm in (candidate, stable)]
                counts = bets.live_sign_counts(*arms)
                yield from ((part, counts) for part in self.parts)
            case "score":  # live ones are paired: how many there are, the split does not say
                return
            case "latency":
                c, b = (arm.latency.get(self.name, _NONE) for arm in (candidate, stable))
                if len(c) and len(b) and scale is not None:
                    yield from self._live_latency(c, b, scale)

    def _bet(self, part: Part) -> tuple[Fraction, int]:
        """Return margin and direction of a test's x: direction·(c - b) + margin, summed up.

        Of errors and latencies more is worse, of scores less is.
        """
        worse = -1 if self._kind == "score" else 1
        exceedance = self._kind == "latency"  # its margin lies in the buckets
        if part.purpose == ROLLBACK:
            return (_ZERO if exceedance else -self._tolerated), worse
        return (_ZERO if exceedance else self._rejected[part.purpose]), -worse

    def _paired_latency(self, candidate: Ints, stable: Ints, scale: Scale) -> Counted:
        slow = (stable > scale.p95).astype(np.int64)
        for part in self.parts:
            if part.what == "body":
                ranks = (
                    bets.ranks_of(buckets, scale, faster)
                    for buckets, faster in ((candidate, self._slower), (stable, 0))
                )
                yield part, bets.difference_counts(*ranks)
            else:
                slower = candidate > scale.p95 + self._moved(part)
                yield part, bets.sign_counts(slower.astype(np.int64), slow)

    def _live_latency(self, candidate: Ints, stable: Ints, scale: Scale) -> Counted:
        slow = bets.beyond(stable, scale.p95)
        for part in self.parts:
            if part.what == "body":
                ranks = [
                    bets.ranked(histogram, scale, faster)
                    for histogram, faster in ((candidate, self._slower), (stable, 0))
                ]
                yield part, np.concatenate(ranks)
            else:
                slower = bets.beyond(candidate, scale.p95 + self._moved(part))
                yield part, bets.live_sign_counts(slower, slow)

    def _moved(self, part: Part) -> int:
        """Return the buckets by which the candidate may be slower, for a test of the tail."""
        return self._slower if part.purpose == ROLLBACK else self._limits[part.purpose]


def _exactly(margin: float) -> Fraction:
    """Return the decimal number a person wrote, not its nearest binary one."""
    return Fraction(str(margin))


def _defined(pairs: Ints) -> tuple[Ints, Ints]:
    """Return the candidate's and the stable version's values, where both have one."""
    candidate, stable = pairs[:, 0], pairs[:, 1]
    both = (candidate >= 0) & (stable >= 0)
    return (candidate, stable) if both.all() else (candidate[both], stable[both])
