"""The traffic model's distributions, as functions of standard normal numbers.

Every metric of a request is an increasing function of a normal number, so two answers to the same
prompt are made alike by correlating their numbers, and drawing is a look into a table.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from benchmarks.canary.outcomes import Floats
from benchmarks.canary.scenarios import QUALITY_SD
from serving.rollout.evidence import BUCKET_RATIO, BUCKETS, SCORE_STEPS, SHORTEST_S, Ints

Singles = npt.NDArray[np.float32]
_T = TypeVar("_T", np.float32, np.int16)

Z_95 = 1.6448536269514722
TTFT_P50_S, TTFT_P95_S = 0.300, 1.2
LOG_TTFT_P50 = math.log(TTFT_P50_S)
TTFT_SIGMA = math.log(TTFT_P95_S / TTFT_P50_S) / Z_95
"""The time to first token is lognormal."""

TPOT_MEAN_S, TPOT_SHAPE = 0.030, 9.0
"""The time per output token is gamma."""

TAIL_S = 2.0
"""How much later the first token of a `tail` request comes."""

# hundreds of cells per bucket of latency: what a table rounds away, no margin notices
_CELLS, _REACH = 1 << 15, 6.0
_PER_CELL = _CELLS / (2 * _REACH)
Z = (np.arange(_CELLS) + 0.5) / _PER_CELL - _REACH
NORMAL = np.array([0.5 * math.erfc(-z / math.sqrt(2)) for z in Z])
"""The normal distribution function at `Z`."""


def looked_up(table: npt.NDArray[_T], z: Singles) -> npt.NDArray[_T]:
    """Return the table's entries for normal numbers."""
    cells = (z + np.float32(_REACH)) * np.float32(_PER_CELL)
    return table.take(cells.astype(np.intp), mode="clip")


def _quantiles(log_density: Callable[[Floats], Floats], at: Floats) -> Floats:
    """Return the quantiles at `NORMAL` of a density that is smooth on an even grid."""
    height = log_density(at)
    density = np.exp(height - height.max())
    below = np.concatenate([[0.0], np.cumsum(density[1:] + density[:-1])])
    return np.asarray(np.interp(NORMAL, below / below[-1], at))


def _log_tpot() -> Singles:
    """Return the logarithm of the time per output token, in seconds, by normal number."""
    found = _quantiles(lambda log: TPOT_SHAPE * log - np.exp(log), np.linspace(-6, 5, 20_001))
    return (found + math.log(TPOT_MEAN_S / TPOT_SHAPE)).astype(np.float32)


LOG_TPOT = _log_tpot()


@functools.cache
def scores(mean: float) -> npt.NDArray[np.int16]:
    """Return the steps of a Beta distributed score with this mean, by normal number."""
    strength = mean * (1 - mean) / QUALITY_SD**2 - 1
    up, down = mean * strength, (1 - mean) * strength

    # on the logit scale both ends of the density are smooth, whatever the shape
    def log_density(logit: Floats) -> Floats:
        return -up * np.logaddexp(0, -logit) - down * np.logaddexp(0, logit)

    logits = _quantiles(log_density, np.linspace(-40 / up, 40 / down, 40_001))
    found = 0.5 * (1 + np.tanh(logits / 2))
    return np.rint(found * SCORE_STEPS).astype(np.int16)


@functools.cache
def _ttft(slower: float, tail: float) -> tuple[Floats, Floats]:
    """Return a distribution function and where it takes its values, in log-seconds."""
    log_s = np.linspace(math.log(0.001), math.log(1000), 60_001)
    seconds = np.exp(log_s)

    def below(limit: Floats) -> Floats:
        late = np.log(np.maximum(limit, 1e-9)) - LOG_TTFT_P50 - math.log(slower)
        return np.asarray(np.interp(late / TTFT_SIGMA, Z, NORMAL))

    return (1 - tail) * below(seconds) + tail * below(seconds - TAIL_S), log_s


def ttft_quantile(share: Floats, *, slower: float = 1.0, tail: float = 0.0) -> Floats:
    """Return the time to first token, in seconds, that this share of requests does not exceed."""
    distribution, log_s = _ttft(slower, tail)
    return np.asarray(np.exp(np.interp(share, distribution, log_s)))


def buckets(log_s: Singles | Floats) -> Ints:
    """Return the buckets of latencies, given as logarithms of seconds: `bucket_of`, by array."""
    found = (log_s - math.log(SHORTEST_S)) / math.log(BUCKET_RATIO)
    return np.clip(found, 0, BUCKETS - 1).astype(np.int64)
