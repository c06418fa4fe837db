"""What was seen of a candidate beside its parent: right or wrong per item, apart per token."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from components.guard.comparison import Pairs


@dataclass(frozen=True, slots=True)
class Judged:
    """One item, answered by both versions."""

    identity: str
    skill: str
    length: int
    """Tokens of the parent's answer: what rounding spoils, it spoils more with every token."""

    parent: bool
    """Whether the parent was right."""

    candidate: bool


@dataclass(frozen=True, slots=True)
class Distance:
    """How far two versions are apart on the tokens of one answer, given the same tokens before."""

    kl: tuple[float, ...]
    """KL(parent || candidate) per token, in nats; where only the likeliest tokens are known, what
    it is at least."""

    same_top: int
    """Tokens where both find the same one likeliest."""

    log_ratio: float
    """Sum of ln p_parent - ln p_candidate of the answer's tokens; likewise at least."""

    truncated: float = 0.0
    """Sum of the parent's probability outside the tokens that both told; 0 in process."""

    not_compared: int = 0
    """Tokens of the answer after the two versions had said different ones."""


Slice = tuple[str, str]
"""A part of the items: (`skill` or `length`, its name)."""


@dataclass(frozen=True, slots=True)
class Tally:
    """Gains and losses, in all and per slice."""

    total: Pairs
    slices: Mapping[Slice, Pairs]


NOTHING = Tally(Pairs(0, 0, 0), {})


def pair_up(parent: Sequence[Mapping[str, Any]], new: Sequence[Mapping[str, Any]]) -> list[Judged]:
    """Return the items that both answered: same id, same expected answer; in the parent's order.

    Args:
        parent: The `items` of `scoring.measure`.
        new: Those of the candidate.
    """
    after = {(r["id"], r["expected"]): bool(r["correct"]) for r in new}
    return [
        Judged(r["id"], r["skill"], int(r["tokens"]), bool(r["correct"]), after[key])
        for r in parent
        if (key := (r["id"], r["expected"])) in after
    ]


def tally(items: Iterable[Judged], onto: Tally = NOTHING) -> Tally:
    """Return what was counted so far, with further items."""
    total, slices = onto.total, dict(onto.slices)
    for item in items:
        total = _plus(total, item)
        for name in (("skill", item.skill), ("length", bucket(item.length))):
            slices[name] = _plus(slices.get(name, NOTHING.total), item)
    return Tally(total, slices)


def bucket(tokens: int) -> str:
    """Return the length bucket: powers of two, so that names do not depend on the data."""
    high = 1 << max(0, tokens - 1).bit_length()
    low = high // 2 + 1
    return f"{low} to {high} tokens" if high > 2 else f"up to {max(high, 2)} tokens"


def _plus(pairs: Pairs, item: Judged) -> Pairs:
    gained = item.candidate and not item.parent
    lost = item.parent and not item.candidate
    return Pairs(pairs.n + 1, pairs.gained + gained, pairs.lost + lost)
