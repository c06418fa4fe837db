"""How far the distributions of two versions are apart, with intervals; pure functions.

The tokens of one item depend on each other, so items are resampled, not tokens: a cluster
bootstrap, the same draws for every measure. Source: Davison and Hinkley, Bootstrap Methods and
their Application (1997), section 3.8; percentile intervals: Efron (1981).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.guard.items import Distance

DRAWS = 1000
SEED = 5
FEWEST_ITEMS = 20
"""Fewer say nothing about how items differ, so there is no interval, and nothing is refused."""

TAIL = 0.999
_INTERVAL = (0.025, 0.975)

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Limits:
    """Beyond these a checkpoint is damaged, whatever its answers score.

    The defaults are far on the bad side of what 4 bits do, so that the task score decides about
    everything else. Source of the figures: llama.cpp, tools/perplexity/README.md, Llama 3 8B
    against FP16; the tail: published `llama-perplexity --kl-divergence` logs of 8B models.
    """

    mean_kl: float = 0.15
    """Nats per token. 4-bit formats: 0.028 to 0.072; 3-bit: 0.07 to 0.23; 2-bit from 0.33."""

    tail_kl: float = 5.0
    """99.9th percentile, nats. 3-bit formats with a mean of 0.07: 1.6."""

    same_top: float = 0.80
    """Share of tokens. 4 bits (Q4_K_M): 0.92; 2 bits (Q2_K): 0.71."""

    perplexity_ratio: float = 1.20
    """4-bit formats: 1.03 to 1.08; 2-bit: 1.39 to 1.56."""


@dataclass(frozen=True, slots=True)
class Measure:
    """One figure with its 95 % interval over items."""

    name: str
    value: float
    low: float | None
    """None: fewer than `FEWEST_ITEMS` items."""

    high: float | None
    limit: float | None
    """None: reported, never a reason."""

    beyond: bool = False
    """Whether the whole interval lies on the bad side of the limit."""

    def to_json(self) -> dict[str, Any]:
        """Return the fields."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class _Sums:
    """Per item (n,), and per token (t,) sorted by KL, rising."""

    tokens: Floats
    kl: Floats
    same: Floats
    log_ratio: Floats
    sorted_kl: Floats
    owner: NDArray[np.int64]


def measures(distances: Sequence[Distance], limits: Limits | None = None) -> list[Measure]:
    """Return the measures of a candidate; none where no token was compared.

    A limit refuses only when the whole interval is beyond it. What is bounded from below
    (endpoints tell the likeliest tokens only) can exceed a limit all the same.
    """
    limits = limits or Limits()
    seen = [each for each in distances if each.kl]
    if not seen:
        return []
    sums = _sums(seen)
    point = _figures(sums, np.ones(len(seen)))
    draws = _bootstrap(sums, len(seen)) if len(seen) >= FEWEST_ITEMS else None
    bounds = (limits.mean_kl, limits.tail_kl, limits.same_top, limits.perplexity_ratio)
    names = ("mean KL", f"{TAIL:.1%} KL", "same top token", "perplexity ratio")
    found = [
        _measure(name, point[k], None if draws is None else draws[:, k], bounds[k])
        for k, name in enumerate(names)
    ]
    if draws is not None and point[2] == 1:
        # without one other top token a bootstrap claims certainty; n items only bound their share
        found[2] = replace(found[2], low=_INTERVAL[0] ** (1 / len(seen)))
    truncated = sum(each.truncated for each in seen)
    if truncated:
        share = truncated / sum(len(each.kl) for each in seen)
        found.append(Measure("truncated mass", share, None, None, None))
    if skipped := sum(each.not_compared for each in distances):
        share = skipped / (skipped + sum(len(each.kl) for each in seen))
        found.append(Measure("tokens not compared", share, None, None, None))
    return found


def _measure(name: str, value: float, draws: Floats | None, limit: float) -> Measure:
    if draws is None:
        return Measure(name, value, None, None, limit)
    low, high = (float(q) for q in np.quantile(draws, _INTERVAL))
    beyond = high < limit if name == "same top token" else low > limit
    return Measure(name, value, low, high, limit, beyond)


def _sums(seen: Sequence[Distance]) -> _Sums:
    flat = np.array([kl for each in seen for kl in each.kl])
    tokens = np.array([len(each.kl) for each in seen], dtype=float)
    order = np.argsort(flat, kind="stable")
    owner = np.repeat(np.arange(len(seen)), tokens.astype(np.int64))[order]
    return _Sums(
        tokens=tokens,
        kl=np.array([math.fsum(each.kl) for each in seen]),
        same=np.array([each.same_top for each in seen], dtype=float),
        log_ratio=np.array([each.log_ratio for each in seen]),
        sorted_kl=flat[order],
        owner=owner,
    )


def _figures(sums: _Sums, weights: Floats) -> tuple[float, float, float, float]:
    """Return mean KL, its tail, same-top share and perplexity ratio for (n,) item weights."""
    tokens = float(weights @ sums.tokens)
    below = np.cumsum(weights[sums.owner])
    tail = sums.sorted_kl[int(np.searchsorted(below, TAIL * tokens - 1e-9))]
    return (
        float(weights @ sums.kl) / tokens,
        float(tail),
        float(weights @ sums.same) / tokens,
        math.exp(min(float(weights @ sums.log_ratio) / tokens, 700.0)),
    )


def _bootstrap(sums: _Sums, items: int) -> Floats:
    """Return (DRAWS, 4) figures."""
    generator = np.random.default_rng(SEED)
    found = np.empty((DRAWS, 4))
    for draw in range(DRAWS):
        picked = generator.integers(items, size=items)
        found[draw] = _figures(sums, np.bincount(picked, minlength=items).astype(float))
    return found
