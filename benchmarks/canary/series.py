"""What a monitoring system shows of a version: one value per metric and window, for the peers."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from benchmarks.canary.model import TPOT_MEAN_S, TPOT_SHAPE, TTFT_P95_S, ttft_quantile
from benchmarks.canary.outcomes import Bools, Floats
from benchmarks.canary.scenarios import ERROR_RATE, PEER_MARGINS, QUALITY, QUALITY_SD
from benchmarks.canary.world import Requests, Side, World
from serving.rollout.evidence import SCORE_STEPS, Ints

METRICS = ("error_rate", "ttft_p95", "tpot_mean", "quality")
"""The columns of a window: p95 of TTFT and means of the rest, as the peers' examples query them."""

HIGHER_IS_WORSE = np.array([True, True, True, False])

LIMITS = np.array(
    [
        ERROR_RATE + PEER_MARGINS["error_rate"],
        TTFT_P95_S * (1 + PEER_MARGINS["ttft_p95"]),
        TPOT_MEAN_S * (1 + PEER_MARGINS["tpot_p95"]),
        QUALITY - PEER_MARGINS["quality"],
    ]
)
"""Static thresholds, exactly at the margin above what the stable version does."""

_MANY = 40
"""From so many requests on, a mean of scores is normal."""


def window(world: World, side: Side, counts: Ints) -> Floats:
    """Draw what a window shows of a version; (replications, metrics), NaN without requests.

    Args:
        world: After `advance()`, by the ticks of the window.
        side: Which version.
        counts: Requests per replication and tick.
    """
    requests = counts.sum(axis=1)
    some = requests > 0
    shown = np.full((world.reps, len(METRICS)), np.nan)
    if not some.any():
        return shown
    if world.scenario.env == "iid" and requests[some].min() >= _MANY:
        shown[some] = _sampled(world, side, requests[some])
    else:
        shown[some] = _summarized(world.requests(side, counts), requests)[some]
    return shown


def breached(shown: Floats) -> Bools:
    """Return which values are beyond their limit; what is missing is not."""
    return np.where(HIGHER_IS_WORSE, shown > LIMITS, shown < LIMITS)


def _sampled(world: World, side: Side, n: Ints) -> Floats:
    """Draw the values from their own distributions, where requests are independent."""
    truth, rng = world.truth[side], world.rng
    rank = np.ceil(0.95 * n)
    share = rng.beta(rank, n - rank + 1)
    ttft = ttft_quantile(share, slower=truth.ttft, tail=truth.tail)
    tpot = truth.tpot * TPOT_MEAN_S * rng.gamma(TPOT_SHAPE * n) / (TPOT_SHAPE * n)
    quality = truth.q + QUALITY_SD / np.sqrt(n) * rng.standard_normal(len(n))
    return np.stack([rng.binomial(n, truth.err) / n, ttft, tpot, quality], axis=1)


def _summarized(requests: Requests, n: Ints) -> Floats:
    """Return the values of requests that were drawn one by one; without requests, anything."""
    reps = len(n)
    of = np.repeat(np.arange(reps), n)
    at_least_one = np.maximum(n, 1)

    def mean(values: npt.NDArray[np.generic]) -> Floats:
        return np.bincount(of, weights=values, minlength=reps) / at_least_one

    return np.stack(
        [
            mean(requests.failed),
            _p95(np.exp(requests.ttft), n),
            mean(np.exp(requests.tpot)),
            mean(requests.scores) / SCORE_STEPS,
        ],
        axis=1,
    )


def _p95(values: npt.NDArray[np.float32], n: Ints) -> npt.NDArray[np.float32]:
    """Return the 95th percentile per replication of values that lie one after the other."""
    rows = np.full((len(n), int(n.max())), np.inf, dtype=np.float32)
    rows[np.arange(rows.shape[1]) < n[:, None]] = values
    rows.sort(axis=1)
    rank = np.ceil(0.95 * n).astype(np.int64)
    return np.asarray(rows[np.arange(len(n)), np.maximum(rank - 1, 0)])
