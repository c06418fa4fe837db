"""When a recipe is refused: which neighbours are worth trying, in how few tries. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate
from typing import Any, Literal

from penstock.core.errors import RecipeImpossible
from penstock.core.recipes import GROUP_SIZES, W4A16, Awq, Recipe, parse_recipe

_SIXTEEN, _EIGHT = 16, 8


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """Layers that are quantized alike, and what rounding them alone does."""

    layers: tuple[str, ...]
    kl: float
    """Mean KL divergence from the parent, nats per token."""

    weights: int


@dataclass(frozen=True, slots=True)
class Candidate:
    """A recipe and about how large it comes out."""

    recipe: Recipe
    bytes: int
    """Of the layers in question, quantized or kept; only the order counts."""


def candidates(
    refused: Recipe,
    sensitivities: Sequence[Sensitivity],
    *,
    group_sizes: Sequence[int] = GROUP_SIZES,
    mixed: bool = True,
) -> list[Candidate]:
    """Return the neighbours of a refused recipe, the smallest checkpoint first.

    Smaller groups where the recipe has groups; and for each group size the most sensitive layers
    spared: 1, 2, 4, ... groups of layers, by KL per weight, so that a spared byte saves the most.

    Args:
        refused: What was refused.
        sensitivities: Of every group of layers that is quantized.
        group_sizes: Those that divide every layer.
        mixed: Whether spared layers of `w4a16` may be FP8; otherwise they stay in 16 bits.
    """
    ranked = sorted(sensitivities, key=lambda s: (-s.kl / max(s.weights, 1), s.layers))
    found = {
        recipe.digest: Candidate(recipe, size_of(recipe, ranked))
        for based in _regrouped(refused, group_sizes)
        for recipe in (based, *_spared(based, ranked, mixed=mixed))
    }
    found.pop(refused.digest, None)
    return sorted(found.values(), key=lambda c: (c.bytes, c.recipe.label))


def size_of(recipe: Recipe, sensitivities: Sequence[Sensitivity]) -> int:
    """Return about how many bytes the layers take with a recipe."""
    eight = set(getattr(recipe, "fp8_layers", ()))
    bits = Fraction(0)
    for group in sensitivities:
        first = group.layers[0]
        kept = _SIXTEEN if first in recipe.ignore else _EIGHT if first in eight else None
        bits += group.weights * Fraction(recipe.bits if kept is None else kept)
    return int(bits / 8)


def _regrouped(refused: Recipe, group_sizes: Sequence[int]) -> Iterator[Recipe]:
    if not isinstance(refused, W4A16 | Awq):
        yield refused
        return
    for size in sorted((g for g in group_sizes if g <= refused.group_size), reverse=True):
        yield _with(refused, group_size=size)


def _spared(base: Recipe, ranked: Sequence[Sensitivity], *, mixed: bool) -> Iterator[Recipe]:
    in_eight = mixed and isinstance(base, W4A16)
    field: Literal["fp8_layers", "ignore"] = "fp8_layers" if in_eight else "ignore"
    already: tuple[str, ...] = getattr(base, field)
    free = [s.layers for s in ranked if not set(s.layers) & {*already, *base.ignore}]
    spared = list(accumulate(free, initial=already))
    count = 1
    while count < len(free):  # all of them would be another recipe
        yield _with(base, **{field: spared[count]})
        count *= 2


def _with(recipe: Recipe, **changed: Any) -> Recipe:
    return parse_recipe(recipe.model_dump() | changed)


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the guard said of one checkpoint."""

    accepted: bool
    quality: float
    """The guard's score; more is better."""

    reason: str = ""


@dataclass(frozen=True, slots=True)
class Tried:
    """A candidate that was made and judged; or could not be made."""

    candidate: Candidate
    judgement: Judgement


@dataclass(frozen=True, slots=True)
class Search:
    """What a search found."""

    tried: tuple[Tried, ...]
    """In the order of trying."""

    accepted: Tried | None
    """The smallest that passed."""

    exhausted: bool
    """The budget ended before the answer was certain."""


def search(
    found: Sequence[Candidate], attempt: Callable[[Recipe], Judgement], budget: int
) -> Search:
    """Find the smallest candidate that passes, in at most `budget` tries.

    Strides of 1, 2, 4, ... up the sizes until one passes, then halves the gap below it: if a
    larger neighbour is never worse, that is the smallest, in about 2 log2(n) tries.

    Args:
        found: Smallest first; see `candidates`.
        attempt: Makes a checkpoint, judges it, and keeps or removes it. `RecipeImpossible` counts
            as a refusal with its reason.
        budget: Most tries.
    """
    tried: dict[int, Tried] = {}

    def passes(place: int) -> bool:
        try:
            judged = attempt(found[place].recipe)
        except RecipeImpossible as problem:
            judged = Judgement(False, 0.0, str(problem))
        tried[place] = Tried(found[place], judged)
        return judged.accepted

    low, high, stride = -1, len(found), 1  # below or at `low` refused; from `high` on accepted
    while low + 1 < high and len(tried) < budget:
        climbing = high == len(found)
        place = min(low + stride, high - 1) if climbing else (low + high) // 2
        stride *= 2
        if passes(place):
            high = place
        else:
            low = place
    best = tried[high] if high < len(found) else None
    return Search(tuple(tried.values()), best, exhausted=low + 1 < high)


@dataclass(frozen=True, slots=True)
class Point:
    """One checkpoint on the picture of what was tried."""

    label: str
    size_bytes: int
    quality: float
    speed: float | None = None
    """Measured tokens per second; None where it was not measured."""


def pareto(points: Sequence[Point]) -> list[Point]:
    """Return the points that no other beats: smaller, better or faster, and worse in nothing.

    A speed that was not measured neither beats nor is beaten.
    """
    return sorted(
        (p for p in points if not any(_beats(other, p) for other in points)),
        key=lambda p: (p.size_bytes, p.label),
    )


def _beats(one: Point, other: Point) -> bool:
    fast = (one.speed, other.speed)
    speeds = (0.0, 0.0) if None in fast else fast
    gains = (
        other.size_bytes - one.size_bytes,
        one.quality - other.quality,
        (speeds[0] or 0.0) - (speeds[1] or 0.0),
    )
    return min(gains) >= 0 and max(gains) > 0
