"""What must hold of the table, and proof that it sees mistakes: `python -m benchmarks.canary.gate`.

`violations` reads a table's rows. Run as a command, it breaks the engine in four ways that look
harmless, one after another, and fails unless each of them turns the table red.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks.canary.outcomes import Outcomes
from benchmarks.canary.penstock import run
from benchmarks.canary.scenarios import SCENARIOS
from benchmarks.canary.table import BLOCK, SEED, row
from penstock.core.spec import Rollout
from serving.rollout.comparisons import ROLLBACK
from serving.rollout.eprocess import UNIT
from serving.rollout.evidence import Arm, Batch
from serving.rollout.judge import Evidence, Judge, Verdict

FALSE_ROLLBACK = 0.01
MISSED_AT_MARGIN, MISSED_BEYOND = 0.05, 0.002
NO_USER = ("err2", "ttft30", "q3", "tail", "err20", "err2_1rps", "q3_1rps", "ttft30_noisy")
"""Faults that shadow can see."""

AT_MARGIN = ("q_at_margin", "err_at_margin", "ttft_at_margin")
EXCHANGEABLE = ("aa", "better", "aa_1rps", "aa_burst", "aa_noisy", "all_at_eps")
LIVE_ONLY_REQUESTS = 1100
PROMOTED_MINUTES = {"aa": 15.0, "aa_1rps": 20.0}


def violations(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return what does not hold of the rows of `penstock`; a share is judged by its 99 % bound."""
    return [told for found in rows for told in _of(found)]


def _of(found: Mapping[str, Any]) -> Iterator[str]:
    name, wrong, reps = found["scenario"], found["wrong"], found["reps"]
    if name in EXCHANGEABLE and _exceeds(wrong, reps, FALSE_ROLLBACK):
        yield f"G1 {name}: {wrong:.2%} false rollbacks, more than {FALSE_ROLLBACK:.0%}"
    if name in AT_MARGIN and _exceeds(wrong, reps, MISSED_AT_MARGIN):
        yield f"G2 {name}: {wrong:.2%} missed, more than {MISSED_AT_MARGIN:.0%}"
    if name in NO_USER:
        if _exceeds(wrong, reps, MISSED_BEYOND):
            yield f"G2 {name}: {wrong:.2%} missed, more than {MISSED_BEYOND:.1%}"
        if found["bad_user_requests_p50"]:
            yield f"G3 {name}: {found['bad_user_requests_p50']:.0f} users' requests, not none"
    if name == "err2_liveonly" and (found["bad_user_requests_p50"] or 0) > LIVE_ONLY_REQUESTS:
        yield f"G3 {name}: {found['bad_user_requests_p50']:.0f} users' requests"
    minutes = found["minutes_p50"] or math.inf
    if minutes > PROMOTED_MINUTES.get(name, math.inf):
        yield f"G5 {name}: {minutes:.1f} minutes"


def _exceeds(share: float, reps: int, limit: float) -> bool:
    """Return whether a rate at the limit would show so many in fewer than 1 of 100 tables."""
    seen = round(share * reps)
    below = sum(_chance(k, reps, limit) for k in range(seen))
    return 1 - below < 0.01


def _chance(k: int, n: int, p: float) -> float:
    log = math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
    return math.exp(log + k * math.log(p) + (n - k) * math.log1p(-p))


class NoTolerance(Judge):
    """Forgets eps: any loss at all is a reason to roll back."""

    def __init__(self, policy: Rollout) -> None:
        exact = {n: m.model_copy(update={"tolerate": 1e-6}) for n, m in policy.metrics.items()}
        super().__init__(policy.model_copy(update={"metrics": exact}))


class StaleThresholds(Judge):
    """Compares live requests with what the stable version did in its first batch, not now."""

    def __init__(self, policy: Rollout) -> None:
        super().__init__(policy)
        self._first: Arm | None = None

    def add(self, evidence: Evidence, batch: Batch, percent: int) -> Evidence:
        """Return the evidence with a batch whose stable side is an old one."""
        if batch.stable.requests and self._first is None:
            self._first = batch.stable
        if batch.stable.requests and self._first is not None:
            times = batch.stable.requests / max(1, self._first.requests)
            batch = replace(batch, stable=_scaled(self._first, times))
        return super().add(evidence, batch, percent)


def _scaled(arm: Arm, times: float) -> Arm:
    latency = {n: np.rint(c * times).astype(np.int64) for n, c in arm.latency.items()}
    return Arm(round(arm.requests * times), round(arm.errors * times), latency)


class NoAveraging(Judge):
    """Believes whichever bet on whichever metric won most, as if it had been the only one."""

    def verdict(self, evidence: Evidence) -> Verdict:
        """Return the verdict of the luckiest bet."""
        accusing = [row for row, test in enumerate(self.tests) if test.part.purpose == ROLLBACK]
        luckiest = float(evidence.wealth[accusing].max()) / UNIT
        return super().verdict(evidence)._replace(rollback=luckiest)


class CountsTwice(Judge):
    """Takes every batch twice, as after a write that was believed lost."""

    def add(self, evidence: Evidence, batch: Batch, percent: int) -> Evidence:
        """Return the evidence with a batch, and with it again."""
        return super().add(super().add(evidence, batch, percent), batch, percent)


MUTANTS: dict[str, tuple[Callable[[Rollout], Judge], str]] = {
    "without eps": (NoTolerance, "all_at_eps"),
    "stale thresholds": (StaleThresholds, "aa_burst"),
    "without averaging": (NoAveraging, "all_at_eps"),
    "every batch twice": (CountsTwice, "all_at_eps"),
}


def block(name: str, reps: int, seed: int) -> Outcomes:
    """Return what a mutant (or, with an empty name, the shipped engine) does."""
    make, scenario = MUTANTS.get(name, (Judge, "all_at_eps"))
    (found,) = [s for s in SCENARIOS if s.name == scenario]
    return run(found, reps, np.random.default_rng([SEED, seed]), make)


def main() -> None:
    """Break the engine in every way; fail unless the table sees each."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.canary.gate", description=__doc__)
    parser.add_argument("--reps", type=int, default=1000)
    reps: int = parser.parse_args().reps
    unseen = []
    with ProcessPoolExecutor() as pool:
        sizes = [min(BLOCK, reps - start) for start in range(0, reps, BLOCK)]
        for name in ("", *MUTANTS):
            jobs = [pool.submit(block, name, size, n) for n, size in enumerate(sizes)]
            outcomes = Outcomes.joined([job.result() for job in jobs])
            scenario = MUTANTS.get(name, (Judge, "all_at_eps"))[1]
            (truth,) = [s for s in SCENARIOS if s.name == scenario]
            found = row("penstock", truth, outcomes)
            red = violations([found])
            print(f"{name or 'as shipped'} ({scenario}): {'; '.join(red) or 'green'}", flush=True)
            if bool(red) != bool(name):
                unseen.append(name or "as shipped")
    sys.exit(f"not as it must be: {', '.join(unseen)}" if unseen else 0)


if __name__ == "__main__":
    main()
