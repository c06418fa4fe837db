"""How other tools decide on a candidate, with their real counters and schedules.

Whoever compares with a static threshold gets it at `series.LIMITS`. FILE:LINE is where the tool's
own source says so.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from benchmarks.canary import kayenta as judge
from benchmarks.canary.outcomes import PROMOTE, ROLL_BACK, Bools, Floats, Ledger, Outcomes
from benchmarks.canary.scenarios import Scenario
from benchmarks.canary.series import HIGHER_IS_WORSE, METRICS, breached, window
from benchmarks.canary.world import SIDES, TICK_S, Requests, Side, World
from serving.rollout.evidence import Ints

MINUTE_S = 60
_TICKS = round(MINUTE_S / TICK_S)
"""Per minute."""


def flagger_5x10(scenario: Scenario, reps: int, rng: np.random.Generator) -> Outcomes:
    """Return what Flagger decides: every minute, threshold 5, 10 to 50 % in steps of 10."""
    return _flagger(World(scenario, reps, rng), threshold=5, step=10)


def flagger_10x5(scenario: Scenario, reps: int, rng: np.random.Generator) -> Outcomes:
    """Return what Flagger decides as documented: threshold 10, 5 to 50 % in steps of 5."""
    return _flagger(World(scenario, reps, rng), threshold=10, step=5)


def _flagger(world: World, *, threshold: int, step: int, most: int = 50) -> Outcomes:
    """Return what Flagger decides.

    One breach fails a tick, and so does a missing value. Failures add up and no success forgives
    them (scheduler.go:455); the rollback comes one tick after the last of them (:430).
    """
    ledger, minute = Ledger(world.reps), 0
    weight, failures = np.full(world.reps, step), np.zeros(world.reps, dtype=np.int64)
    while ledger.undecided.any():
        minute += 1
        world.advance(_TICKS)
        served = _serve(world, ledger, weight / 100)
        ledger.decide(failures >= threshold, ROLL_BACK, minute * MINUTE_S)
        shown = window(world, "candidate", served)
        failed = (breached(shown) | np.isnan(shown)).any(axis=1)
        failures += failed
        ledger.decide(~failed & (weight >= most), PROMOTE, minute * MINUTE_S)
        weight = np.where(failed, weight, weight + step)
    return ledger.outcomes


@dataclass(frozen=True, slots=True)
class Steps:
    """A schedule of weights, and how an analysis watches it."""

    weights: tuple[int, ...]
    dwell_s: int
    interval_s: int
    failure_limit: int = 0
    inline: bool = False
    """Whether every step has an analysis of its own, which forgets what the last one saw."""

    error_limit: float = 4
    """How many measurements without a value may follow each other (Argo's defaults.go:37)."""


def argo_bg(scenario: Scenario, reps: int, rng: np.random.Generator) -> Outcomes:
    """Return what Argo Rollouts decides as documented, with an analysis in the background."""
    steps = Steps((20, 40, 60, 80), dwell_s=600, interval_s=300, failure_limit=3)
    return _stepwise(World(scenario, reps, rng), steps)


def argo_inline0(scenario: Scenario, reps: int, rng: np.random.Generator) -> Outcomes:
    """Return what Argo Rollouts decides with an analysis per step and its default limit of 0."""
    steps = Steps((20, 40, 60, 80), dwell_s=300, interval_s=60, inline=True)
    return _stepwise(World(scenario, reps, rng), steps)


def sagemaker(scenario: Scenario, reps: int, rng: np.random.Generator) -> Outcomes:
    """Return what SageMaker decides: 10 % for ten minutes, and any alarm rolls back."""
    steps = Steps((10,), dwell_s=600, interval_s=60, error_limit=math.inf)
    return _stepwise(World(scenario, reps, rng), steps)


def _stepwise(world: World, steps: Steps) -> Outcomes:
    """Return what counting failed measurements per metric decides.

    More failures than the limit roll back (analysis.go:662). No value is an error, not a failure.
    """
    ledger, now = Ledger(world.reps), 0
    failures = np.zeros((world.reps, len(METRICS)), dtype=np.int64)
    errors = np.zeros_like(failures)
    for weight in steps.weights:
        if steps.inline:
            failures[:], errors[:] = 0, 0
        for _ in range(steps.dwell_s // steps.interval_s):
            now += steps.interval_s
            world.advance(round(steps.interval_s / TICK_S))
            shown = window(world, "candidate", _serve(world, ledger, weight / 100))
            failures += breached(shown)
            errors = np.where(np.isnan(shown), errors + 1, 0)
            bad = (failures > steps.failure_limit) | (errors > steps.error_limit)
            ledger.decide(np.asarray(bad.any(axis=1)), ROLL_BACK, now)
            if not ledger.undecided.any():
                return ledger.outcomes
    ledger.decide(ledger.undecided, PROMOTE, now)
    return ledger.outcomes


def kayenta(scenario: Scenario, reps: int, rng: np.random.Generator) -> Outcomes:
    """Return what Kayenta decides: 3 judgments in 3 h, 10 % against 10 %, scores 75 and 95.

    A score at or below 75 ends it at once (MonitorCanaryTask.java:116); the last must reach 95.
    """
    world, ledger = World(scenario, reps, rng), Ledger(reps)
    score = np.full(reps, 100.0)
    seen: dict[Side, Floats] = {side: np.full((reps, 180, len(METRICS)), np.nan) for side in SIDES}
    for minute in range(180):
        if not ledger.undecided.any():
            break
        world.advance(_TICKS)
        for side in SIDES:
            seen[side][:, minute] = window(world, side, _split(world, ledger, side))
        if (minute + 1) % 60 == 0:
            score = _scores(seen, minute + 1, ledger.undecided)
            ledger.decide(score <= 75, ROLL_BACK, (minute + 1) * MINUTE_S)
    ledger.decide(score >= 95, PROMOTE, 180 * MINUTE_S)
    ledger.decide(ledger.undecided, ROLL_BACK, 180 * MINUTE_S)
    return ledger.outcomes


def _scores(seen: dict[Side, Floats], minutes: int, judged: Bools) -> Floats:
    """Return the share of metrics that pass, in percent; 100 for what is not judged."""
    score = np.full(len(judged), 100.0)
    for rep in np.flatnonzero(judged):
        candidate, stable = (seen[side][rep, :minutes].T for side in SIDES)
        failed = [
            judge.worse(ours, theirs, higher_is_worse=bool(higher))
            for ours, theirs, higher in zip(candidate, stable, HIGHER_IS_WORSE, strict=True)
        ]
        score[rep] -= 100 * float(np.mean(failed))
    return score


def iter8(scenario: Scenario, reps: int, rng: np.random.Generator) -> Outcomes:
    """Return what Iter8 (before 0.16) decides: limits on estimates from 100 requests, once."""
    world, ledger, needed = World(scenario, reps, rng), Ledger(reps), 100
    seconds = needed / (0.10 * scenario.rate)
    world.advance(max(1, round(seconds / TICK_S)))
    counts = rng.multinomial(needed, world.rate / world.rate.sum(axis=1, keepdims=True))
    ledger.outcomes.exposed[:] = needed
    bad = np.asarray(breached(window(world, "candidate", counts)).any(axis=1))
    ledger.decide(bad, ROLL_BACK, seconds)
    ledger.decide(~bad, PROMOTE, seconds)
    return ledger.outcomes


def peeking(scenario: Scenario, reps: int, rng: np.random.Generator) -> Outcomes:
    """Return what tests repeated every minute decide: one-sided p < .05, 10 % against 10 %.

    This is what a pipeline step written in an afternoon does. Latencies are compared by their
    logarithms, where a t test is at its best.
    """
    world, ledger = World(scenario, reps, rng), Ledger(reps)
    totals = {side: np.zeros((3, reps, len(METRICS))) for side in SIDES}
    for minute in range(1, 31):
        world.advance(_TICKS)
        for side in SIDES:
            totals[side] += _moments(world.requests(side, _split(world, ledger, side)))
        enough = np.minimum(totals["candidate"][0, :, 0], totals["stable"][0, :, 0]) >= 30
        fired = (_z(totals["candidate"], totals["stable"]) > 1.6448536).any(axis=1)
        ledger.decide(fired & enough, ROLL_BACK, minute * MINUTE_S)
        if not ledger.undecided.any():
            break
    ledger.decide(ledger.undecided, PROMOTE, 30 * MINUTE_S)
    return ledger.outcomes


def _moments(requests: Requests) -> Floats:
    """Return number, sum and sum of squares; (3, replications, metrics)."""
    n = requests.counts.sum(axis=1)
    of = np.repeat(np.arange(len(n)), n)
    columns = [requests.failed, requests.ttft, requests.tpot, requests.scores]
    values = np.stack([column.astype(np.float64) for column in columns])
    sums = [
        np.stack([np.bincount(of, column, minlength=len(n)) for column in powers], axis=1)
        for powers in (np.ones_like(values), values, values**2)
    ]
    return np.stack(sums)


def _z(candidate: Floats, stable: Floats) -> Floats:
    """Return how many standard errors worse the candidate is, per metric; NaN if undefined."""
    with np.errstate(divide="ignore", invalid="ignore"):
        means = [total / number for number, total, _ in (candidate, stable)]
        errors = [
            (squares / number - (total / number) ** 2) / number
            for number, total, squares in (candidate, stable)
        ]
        # the test of two shares pools them
        pooled = (candidate[1] + stable[1]) / (candidate[0] + stable[0])
        inverse = 1 / candidate[0] + 1 / stable[0]
        variance = errors[0] + errors[1]
        variance[:, 0] = (pooled * (1 - pooled) * inverse)[:, 0]
        worse = np.where(HIGHER_IS_WORSE, 1.0, -1.0) * (means[0] - means[1])
        return np.asarray(worse / np.sqrt(variance))


def _serve(world: World, ledger: Ledger, weight: float | Floats) -> Ints:
    """Draw the candidate's requests where nothing is decided, and count them as exposed."""
    served = world.arrivals(np.where(ledger.undecided, weight, 0.0))
    ledger.outcomes.exposed[:] += served.sum(axis=1)
    return served


def _split(world: World, ledger: Ledger, side: Side) -> Ints:
    """Draw the requests of one of two equal tenths of the traffic."""
    if side == "candidate":
        return _serve(world, ledger, 0.10)
    return world.arrivals(np.where(ledger.undecided, 0.10, 0.0))
