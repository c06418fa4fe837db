"""Whether what users get of the champion became worse than it was when they first got it. Pure.

The first requests that are seen of a version are its baseline; later ones are bet against it being
no worse, by more than is tolerated. The bets are an e-detector: for as long as nothing changes,
false alarms are `APART_LOOKS` looks at some traffic apart, or more, on average.

Sources: Shin, Ramdas, Rinaldo, *E-detectors: a nonparametric framework for sequential change
detection* (2023), those of Shiryaev-Roberts kind; the baseline's upper bound: Hoeffding,
*Probability inequalities for sums of bounded random variables* (1963), theorem 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from penstock.core.errors import ConfigurationError
from penstock.core.schedules import Rule, Schedule
from penstock.core.spec import Margins, ModelSpec
from serving.rollout.evidence import SCORE_STEPS, Arm

BASELINE = 1000
"""Requests, or scored answers, that a version is measured by."""

LOOK_S = 30.0
APART_LOOKS = 30 * 86_400 / LOOK_S
"""A false alarm a month, or fewer."""

_UNSURE = 0.001
"""Chance that the baseline's bound is too low."""

_BETS = tuple(2.0**power for power in range(5))
"""How much worse it may have become, as multiples of `reject`."""


def check(schedule: Schedule, model: ModelSpec) -> None:
    """Refuse what no drift is seen of: `ConfigurationError` names the metrics that there are."""
    on_cluster = not isinstance(model.target, str)
    kinds = ("errors",) if on_cluster else ("errors", "score")
    known = [
        name
        for name, each in model.rollout.metrics.items()
        if each.kind in kinds and (each.kind == "errors" or "live" in each.prove_in)
    ]
    for rule in map(Rule.parse, schedule.on):
        if rule.kind == "drift" and rule.name not in known:
            where = (
                "engines on a cluster keep no scores"
                if on_cluster
                else "scores count that users send, whose prove_in has live"
            )
            raise ConfigurationError(
                f"--on {rule}: allowed are metrics of kind {' or '.join(kinds)} in "
                f"rollout.metrics: {', '.join(known) or 'there is none'}; {where}",
                hint="drift:error_rate, or name a score in model.yaml",
            )


class Losses(NamedTuple):
    """What users lost, request by request: 0 nothing, 1 everything."""

    values: npt.NDArray[np.float64]
    counts: npt.NDArray[np.int64]

    @property
    def requests(self) -> int:
        """How many there are."""
        return int(self.counts.sum())

    @property
    def total(self) -> float:
        """Their sum."""
        return float(self.values @ self.counts)


@dataclass(frozen=True, slots=True)
class Watched:
    """What is known of a version by one metric."""

    version: str
    requests: int = 0
    """Of its baseline."""

    lost: float = 0.0
    """By its baseline, in all."""

    later: int = 0
    """Requests after its baseline, since the last alarm."""

    lost_later: float = 0.0
    wealth: tuple[float, ...] = (-math.inf,) * len(_BETS)
    """Logarithm of what each bet has won."""

    @property
    def alarm(self) -> bool:
        """Whether it became worse."""
        mean = float(np.logaddexp.reduce(np.array(self.wealth))) - math.log(len(_BETS))
        return mean >= math.log(APART_LOOKS)

    def again(self) -> Watched:
        """Return it as it is after an alarm: the baseline stays, the bets begin anew."""
        return Watched(self.version, self.requests, self.lost)


def losses_of(arm: Arm, metric: str, margins: Margins) -> Losses:
    """Return what users lost by a metric of kind `errors` or `score`."""
    if margins.kind == "errors":
        counts = np.array([arm.requests - arm.errors, arm.errors], dtype=np.int64)
        return Losses(np.array([0.0, 1.0]), counts)
    values = 1.0 - np.arange(SCORE_STEPS + 1) / SCORE_STEPS
    counts = arm.scores.get(metric, np.zeros(SCORE_STEPS + 1, dtype=np.int64))
    return Losses(values, counts)


def looked(before: Watched | None, version: str, found: Losses, margins: Margins) -> Watched:
    """Return what is known after one more look.

    Args:
        before: What was known; None, or of another version, begins anew.
        version: The champion's object.
        found: What its users lost since the look before.
        margins: What a loss is worth.
    """
    known = before if before is not None and before.version == version else Watched(version)
    if not found.requests:
        return known
    if known.requests < BASELINE:
        return replace(
            known, requests=known.requests + found.requests, lost=known.lost + found.total
        )
    most = upper(known.lost / known.requests, known.requests) + margins.tolerate
    won = [_won(found, most, most + bet * margins.reject) for bet in _BETS]
    return replace(
        known,
        later=known.later + found.requests,
        lost_later=known.lost_later + found.total,
        wealth=tuple(
            float(np.logaddexp(wealth, 0.0)) + gain  # whatever it lost, it bets 1 more
            for wealth, gain in zip(known.wealth, won, strict=True)
        ),
    )


def told(watched: Watched, metric: str, margins: Margins) -> str:
    """Return what became worse, in a sentence."""
    was, now = watched.lost / watched.requests, watched.lost_later / max(1, watched.later)
    if margins.kind == "errors":
        was_told, now_told = f"{was:.2%}", f"{now:.2%}"
    else:
        was_told, now_told = f"{1 - was:.3f}", f"{1 - now:.3f}"
    return (
        f"drift: {metric} of {watched.version} is {now_told} in {watched.later} requests, "
        f"and was {was_told} in its first {watched.requests}"
    )


def upper(mean: float, count: int) -> float:
    """Return what the expectation of a number from 0 to 1 is below, but for a chance of 0.001.

    The largest q for which the divergence of Bernoulli distributions kl(mean, q) is at most
    log(1000) / count.
    """
    low, high, most = mean, 1.0, -math.log(_UNSURE) / count
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if _divergence(mean, middle) <= most else (low, middle)
    return high


def _divergence(mean: float, other: float) -> float:
    parts = ((mean, other), (1 - mean, 1 - other))
    return sum(p * math.log(p / max(q, 1e-300)) for p, q in parts if p > 0)


def _won(found: Losses, most: float, bet_on: float) -> float:
    """Return the logarithm of a bet's gain; its expectation is ≤ 1 if the mean loss is ≤ `most`."""
    if bet_on >= 1.0:
        return -math.inf
    stake = (bet_on - most) / (most * (1.0 - most))
    return float(np.log1p(stake * (found.values - most)) @ found.counts)
