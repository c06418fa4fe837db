"""Measures over HTTP how far a candidate's distributions are from its parent's; pure functions.

Endpoints that tell what they think of what they read are made to say the same reference answers, as
in process: every token is compared, and the ratio of perplexities is exact. Others tell it of what
the model itself says only: both are asked, and compared from the first token to the one where they
part, where both had still read the same.

Either way the likeliest tokens only are told. The divergence is what it is at least: everything
that not both told is taken as one outcome, and to merge outcomes never raises a divergence (log-sum
inequality; Cover and Thomas, Elements of Information Theory, theorem 2.7.1). How much was merged is
told as the truncated mass.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from components.guard.items import Distance
from penstock.core.errors import CheckpointBroken
from serving.logprobs import Position, ReadAnswer, ToldAnswer

_LEAST = 1e-6
"""Engines compute in float32: a smaller rest is rounding."""


def distances(parent: Sequence[ToldAnswer], candidate: Sequence[ToldAnswer]) -> list[Distance]:
    """Return how far apart both are on every answer; see `serving.logprobs.LogprobEndpoint`."""
    return [distance(a, b) for a, b in zip(parent, candidate, strict=True)]


def distance(parent: ToldAnswer, candidate: ToldAnswer) -> Distance:
    """Return how far apart both are, up to the token where they part, that one included."""
    kl, same, log_ratio, truncated = [], 0, 0.0, 0.0
    for mine, theirs in zip(parent.positions, candidate.positions, strict=False):
        found, outside = divergence(mine.top, theirs.top)
        kl.append(found)
        truncated += outside
        log_ratio += mine.logprob - _at_most(theirs, mine.token)
        if mine.token != theirs.token:
            break
        same += 1
    return Distance(tuple(kl), same, log_ratio, truncated, len(parent.positions) - len(kl))


def read_distances(parent: Sequence[ReadAnswer], candidate: Sequence[ReadAnswer]) -> list[Distance]:
    """Return how far apart both are on every answer that they were made to say.

    Raises:
        CheckpointBroken: The candidate reads an answer as other tokens than its parent.
    """
    return [read_distance(a, b) for a, b in zip(parent, candidate, strict=True)]


def read_distance(parent: ReadAnswer, candidate: ReadAnswer) -> Distance:
    """Return how far apart both are on one answer, all of it."""
    mine, theirs = parent.positions, candidate.positions
    if [each.token for each in mine] != [each.token for each in theirs]:
        raise CheckpointBroken(
            "the candidate reads an answer as other tokens than its parent",
            hint="copy tokenizer files and chat template from the parent",
        )
    pairs = list(zip(mine, theirs, strict=True))
    found = [divergence(a.top, b.top) for a, b in pairs]
    return Distance(
        kl=tuple(kl for kl, _ in found),
        same_top=sum(_likeliest(a) == _likeliest(b) for a, b in pairs),
        log_ratio=math.fsum(a.logprob - b.logprob for a, b in pairs),
        truncated=math.fsum(outside for _, outside in found),
    )


def _likeliest(position: Position) -> bytes:
    return max(position.top, key=lambda token: position.top[token])


def divergence(p: Mapping[bytes, float], q: Mapping[bytes, float]) -> tuple[float, float]:
    """Return a lower bound of KL(p || q) in nats, and p's mass outside the tokens both told.

    Args:
        p: Natural logarithms of the likeliest tokens.
        q: The same, of the other version.
    """
    both = p.keys() & q.keys()
    known = math.fsum(math.exp(p[token]) * (p[token] - q[token]) for token in both)
    rest_p = max(_LEAST, 1 - math.fsum(math.exp(p[token]) for token in both))
    rest_q = max(_LEAST, 1 - math.fsum(math.exp(q[token]) for token in both))
    return max(0.0, known + rest_p * math.log(rest_p / rest_q)), rest_p


def _at_most(position: Position, token: bytes) -> float:
    """Return the logarithm of a token's probability, or what it is at most if it was not told."""
    if token == position.token:
        return position.logprob
    if token in position.top:
        return position.top[token]
    rest = max(_LEAST, 1 - math.fsum(map(math.exp, position.top.values())))
    return min(0.0, math.log(rest))
