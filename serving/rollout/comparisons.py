"""The tests of one metric: what is bet on when both versions answered, in shadow or live.

Two nulls. `rollback`: the candidate is worse by at most `tolerate`; its rejection is a reason to
roll back. A proof of multiple m: it is worse by m · `reject` or more; its rejection proves that it
is not. A latency is accused by its body and by its tail, and acquitted by its tail alone, so that
damage to few requests cannot hide behind the rest.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from penstock.core.spec import Margins
from serving.rollout import bets
from serving.rollout.bets import Bet, Scale
from serving.rollout.evidence import Arm, Pairs, buckets_in, buckets_within

ROLLBACK = 0.0
"""The purpose of a test that accuses; a proof's purpose is its multiple of `reject`."""

_LARGEST = Fraction(99, 100)  # no share or score can be worse by a whole 1
_NONE = np.zeros(0, dtype=np.int64)


class Found(NamedTuple):
    """A test's bets on a batch."""

    purpose: float
    part: str
    """What of the metric: `mean`, `body` or `tail`."""

    bet: Bet


def parts_of(margins: Margins, multiples: Sequence[float]) -> list[tuple[float, str]]:
    """Return purpose and part of every test of a metric."""
    latency = margins.kind == "latency"
    accusing = [(ROLLBACK, part) for part in (("body", "tail") if latency else ("mean",))]
    return [*accusing, *((m, "tail" if latency else "mean") for m in multiples)]


def paired(
    name: str, margins: Margins, multiples: Sequence[float], pairs: Pairs, scale: Scale | None
) -> Iterator[Found]:
    """Yield the bets on prompts that both versions answered."""
    tolerated = _exactly(margins.tolerate)
    match margins.kind:
        case "errors":
            yield Found(ROLLBACK, "mean", bets.paired_sign(pairs.errors, -tolerated))
            for m in multiples:
                bet = bets.paired_sign(pairs.errors[:, ::-1], _rejected(margins.reject, m))
                yield Found(m, "mean", bet)
        case "score" if name in pairs.scores:
            rows = bets.defined(pairs.scores[name])
            yield Found(ROLLBACK, "mean", bets.paired_scores(rows[:, ::-1], -tolerated))
            for m in multiples:
                yield Found(m, "mean", bets.paired_scores(rows, _rejected(margins.reject, m)))
        case "latency" if name in pairs.latency and scale is not None:
            rows = bets.defined(pairs.latency[name])
            slower = buckets_in(1 + margins.tolerate)
            ranks = bets.pairs_ranked(rows, scale, slower)
            yield Found(ROLLBACK, "body", bets.paired_scores(ranks, Fraction(0)))
            tails = bets.pairs_exceeding(rows, scale.p95 + slower, scale.p95)
            yield Found(ROLLBACK, "tail", bets.paired_sign(tails, Fraction(0)))
            for m in multiples:
                limit = scale.p95 + buckets_within(1 + m * margins.reject)
                tails = bets.pairs_exceeding(rows, limit, scale.p95)
                yield Found(m, "tail", bets.paired_sign(tails[:, ::-1], Fraction(0)))
        case _:  # not measured: no bet
            return


def live(
    name: str, margins: Margins, multiples: Sequence[float], split: Split, scale: Scale | None
) -> Iterator[Found]:
    """Yield the bets on live requests, each answered by one of the versions."""
    ratio, tolerated = split.ratio, _exactly(margins.tolerate)
    match margins.kind:
        case "errors":
            arms = bets.failures(split.candidate), bets.failures(split.stable)
            yield Found(ROLLBACK, "mean", bets.live_sign(*arms, -tolerated, ratio))
            for m in multiples:
                yield Found(
                    m, "mean", bets.live_sign_below(*arms, _rejected(margins.reject, m), ratio)
                )
        case "score":
            c, b = split.candidate.scores.get(name, _NONE), split.stable.scores.get(name, _NONE)
            if not (len(c) and len(b)):
                return
            bet = bets.live_scores(c[::-1], b[::-1], -tolerated, ratio)
            yield Found(ROLLBACK, "mean", bet)
            for m in multiples:
                yield Found(m, "mean", bets.live_scores(c, b, _rejected(margins.reject, m), ratio))
        case "latency":
            yield from _live_latency(name, margins, multiples, split, scale)


class Split(NamedTuple):
    """Live requests of both versions."""

    candidate: Arm
    stable: Arm
    ratio: Fraction
    """The candidate's share of traffic over the stable version's."""


def _live_latency(
    name: str, margins: Margins, multiples: Sequence[float], split: Split, scale: Scale | None
) -> Iterator[Found]:
    c, b = split.candidate.latency.get(name, _NONE), split.stable.latency.get(name, _NONE)
    if scale is None or not (len(c) and len(b)):
        return
    slower = buckets_in(1 + margins.tolerate)
    ranks = bets.ranked(c, scale, slower), bets.ranked(b, scale, 0)
    yield Found(ROLLBACK, "body", bets.live_scores(*ranks, Fraction(0), split.ratio))
    tail = bets.exceeding(b, scale.p95)
    bet = bets.live_sign(bets.exceeding(c, scale.p95 + slower), tail, Fraction(0), split.ratio)
    yield Found(ROLLBACK, "tail", bet)
    for m in multiples:
        limit = scale.p95 + buckets_within(1 + m * margins.reject)
        bet = bets.live_sign_below(bets.exceeding(c, limit), tail, Fraction(0), split.ratio)
        yield Found(m, "tail", bet)


@lru_cache
def _exactly(margin: float) -> Fraction:
    """Return the decimal number a person wrote, not its nearest binary one."""
    return Fraction(str(margin))


@lru_cache
def _rejected(reject: float, multiple: float) -> Fraction:
    return min(_LARGEST, _exactly(multiple) * _exactly(reject))
