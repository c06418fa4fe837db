"""The table: every rule in every scenario, in blocks of replications on all cores."""

from __future__ import annotations

import dataclasses
import math
import os
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.canary import peers
from benchmarks.canary.outcomes import PROMOTE, ROLL_BACK, UNDECIDED, Floats, Outcomes
from benchmarks.canary.scenarios import PEER_MARGINS, Scenario
from benchmarks.canary.world import TICK_S, mean_rate
from penstock.core.errors import ConfigurationError
from penstock.core.spec import Rollout

SEED = 20261101
HORIZON_S = 4 * 3600.0
"""How long a wrong promotion goes unnoticed."""

BLOCK = 125
"""Replications drawn together; part of what a seed means, and small enough for the cache."""

Rule = Callable[[Scenario, int, np.random.Generator], Outcomes]


def _penstock(scenario: Scenario, reps: int, rng: np.random.Generator) -> Outcomes:
    """Return what the shipped engine does; imported here, so that peers run without it."""
    from benchmarks.canary.penstock import penstock

    return penstock(scenario, reps, rng)


RULES: dict[str, Rule] = {
    "flagger_5x10": peers.flagger_5x10,
    "flagger_10x5": peers.flagger_10x5,
    "argo_bg": peers.argo_bg,
    "argo_inline0": peers.argo_inline0,
    "sagemaker": peers.sagemaker,
    "kayenta": peers.kayenta,
    "iter8": peers.iter8,
    "peeking": peers.peeking,
    "penstock": _penstock,
}


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be run."""

    scenarios: tuple[Scenario, ...]
    rules: tuple[str, ...]
    reps: int = 2000
    seed: int = SEED

    def __post_init__(self) -> None:
        unknown = [rule for rule in self.rules if rule not in RULES]
        if unknown or not self.rules:
            found = ", ".join(unknown) or "none"
            raise ConfigurationError(f"--rules: found {found}; allowed: {', '.join(RULES)}")
        if self.reps < 1:
            raise ConfigurationError(f"--reps: found {self.reps}; allowed: 1 and more")
        if self.seed < 0:
            raise ConfigurationError(f"--seed: found {self.seed}; allowed: 0 and more")

    @property
    def blocks(self) -> list[int]:
        """Return how many replications each block has."""
        return [min(BLOCK, self.reps - start) for start in range(0, self.reps, BLOCK)]


def run_block(rule: str, scenario: Scenario, reps: int, entropy: tuple[int, int]) -> Outcomes:
    """Return one block's outcomes; the same for the same seed, rule, scenario and block.

    Args:
        rule: Key of `RULES`.
        scenario: What is true.
        reps: How many replications.
        entropy: Seed and number of the block.
    """
    names = [zlib.crc32(name.encode()) for name in (rule, scenario.name)]
    sequence = np.random.SeedSequence([entropy[0], *names, entropy[1]])
    # SFC64 draws the single-precision normals a fifth faster than the default
    return RULES[rule](scenario, reps, np.random.Generator(np.random.SFC64(sequence)))


def cells(plan: Plan) -> Iterator[tuple[str, Scenario, Outcomes]]:
    """Run everything on all cores; yield each rule and scenario when it is finished."""
    waiting: dict[tuple[str, str], dict[int, Outcomes]] = {}
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        jobs: dict[Future[Outcomes], tuple[str, Scenario, int]] = {
            pool.submit(run_block, rule, scenario, reps, (plan.seed, number)): (
                rule,
                scenario,
                number,
            )
            for scenario in plan.scenarios
            for rule in plan.rules
            for number, reps in enumerate(plan.blocks)
        }
        for done in as_completed(jobs):
            rule, scenario, number = jobs.pop(done)
            parts = waiting.setdefault((rule, scenario.name), {})
            parts[number] = done.result()
            if len(parts) == len(plan.blocks):
                del waiting[rule, scenario.name]
                joined = Outcomes.joined([parts[index] for index in sorted(parts)])
                yield rule, scenario, joined


def row(rule: str, scenario: Scenario, outcomes: Outcomes) -> dict[str, Any]:
    """Return what one rule did in one scenario.

    Minutes and calls are of right decisions; the mean over four hours is of all decisions, and a
    candidate promoted by mistake serves everybody from then on.
    """
    decision = outcomes.decision
    right, mistake = (PROMOTE, ROLL_BACK) if scenario.good else (ROLL_BACK, PROMOTE)
    hit = decision == right
    minutes = outcomes.seconds[hit] / 60
    found = {
        "scenario": scenario.name,
        "rule": rule,
        "reps": len(decision),
        **_share("wrong", float(np.mean(decision == mistake)), len(decision)),
        **_share("undecided", float(np.mean(decision == UNDECIDED)), len(decision)),
        "minutes_p50": _percentile(minutes, 50),
        "minutes_p90": _percentile(minutes, 90),
        "bad_user_requests_p50": None,
        "bad_user_requests_mean_4h": None,
        "replay_calls_p50": _percentile(outcomes.replayed[hit], 50),
    }
    if not scenario.good:
        left = np.where(decision == PROMOTE, np.maximum(0, HORIZON_S - outcomes.seconds), 0.0)
        served = outcomes.exposed + mean_rate(scenario) * left
        found["bad_user_requests_p50"] = _percentile(outcomes.exposed[hit], 50)
        found["bad_user_requests_mean_4h"] = float(served.mean())
    return found


def settings(plan: Plan) -> dict[str, Any]:
    """Return all that the table depends on."""
    return {
        "seed": plan.seed,
        "reps": plan.reps,
        "block": BLOCK,
        "tick_s": TICK_S,
        "horizon_s": HORIZON_S,
        "margins": {
            "penstock": {
                name: {"tolerate": margins.tolerate, "reject": margins.reject}
                for name, margins in Rollout().metrics.items()
            },
            "peers": {name: {"reject": margin} for name, margin in PEER_MARGINS.items()},
        },
        "rules": list(plan.rules),
        "scenarios": [dataclasses.asdict(scenario) for scenario in plan.scenarios],
    }


def _share(name: str, share: float, reps: int) -> dict[str, float]:
    """Return a share and its standard error."""
    return {name: share, f"{name}_se": math.sqrt(share * (1 - share) / reps)}


def _percentile(values: Floats, percent: float) -> float | None:
    """Return a percentile; None of nothing."""
    return float(np.percentile(values, percent)) if len(values) else None
