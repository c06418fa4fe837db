"""Weighs what was seen of two versions: reasons to roll back, proofs to promote, and doubts.

The e-values of all metrics are averaged: that is an e-value again, whatever their dependence, and
reaches 1/false_rollback with at most that probability while no metric is worse than `tolerate`. To
promote, every metric must prove by itself that it is not worse by `reject` (an intersection-union
test, which needs no correction; Berger, Technometrics 24 (1982)). What was not measured proves
nothing, and accuses nobody.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np

from penstock.core.spec import Rollout
from serving.rollout import comparisons
from serving.rollout.bets import Bet, Scale, scale_of
from serving.rollout.comparisons import ROLLBACK, Split
from serving.rollout.eprocess import factors, log_evidence, log_mean, stakes
from serving.rollout.evidence import BUCKETS, Batch, Ints

Setting = Literal["shadow", "live"]
SETTINGS: tuple[Setting, Setting] = ("shadow", "live")
PROOF_IN_SHADOW = 1.0
HISTORY_WANTED = 40
"""Latencies of the stable version before its 95th percentile is a place to bet at."""

_HISTORY_KEPT = 20_000
_WRONG_SPLIT = 1e-4
_BROKEN_CONTROL = 0.01


class Test(NamedTuple):
    """One e-process."""

    setting: Setting
    metric: str
    purpose: float
    """`ROLLBACK`, or the multiple of `reject` that is excluded."""

    part: str


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """Everything that was learnt from all batches so far."""

    wealth: Ints
    """(tests, bets) log-wealth, in the order of `Judge.tests`."""

    split: Ints
    """(2, bets): the candidate got more, or less, than its share."""

    control: Ints
    """(2 · accusing live tests, bets): halves of the stable version, each accused by the other."""

    history: Mapping[str, Ints]
    """`setting/metric` → (BUCKETS,) latencies of the stable version."""

    pairs: int = 0
    requests: int = 0
    """Live ones that the candidate answered."""


class Verdict(NamedTuple):
    """What the evidence says now; natural logarithms of e-values."""

    rollback: float
    blame: Mapping[tuple[Setting, str], float]
    """Metric → that it is worse than tolerated."""

    proofs: Mapping[tuple[Setting, float], Mapping[str, float]]
    """Multiple of `reject` → metric → that it is not worse by so much."""

    split: float
    """That the candidate's share of requests is not its weight."""

    control: float
    """That the stable version is worse than itself."""


class Judge:
    """The tests of a policy.

    Args:
        policy: Metrics, margins and error levels.
    """

    def __init__(self, policy: Rollout) -> None:
        self.policy = policy
        live = tuple(dict.fromkeys(policy.proof[: len(policy.steps)]))
        self._multiples: dict[Setting, tuple[float, ...]] = {
            "shadow": (PROOF_IN_SHADOW,),
            "live": live,
        }
        self._metrics = sorted(policy.metrics.items())
        self.tests = [
            Test(setting, name, *part)
            for setting in SETTINGS
            for name, margins in self._metrics
            for part in comparisons.parts_of(margins, self._multiples[setting])
        ]
        self._rows = {test: row for row, test in enumerate(self.tests)}
        accusing = [t for t in self.tests if t.setting == "live" and t.purpose == ROLLBACK]
        self._control_rows = {test: 2 * row for row, test in enumerate(accusing)}

    def start(self) -> Evidence:
        """Return the evidence of nothing."""
        controls = 2 * len(self._control_rows)
        return Evidence(stakes(len(self.tests)), stakes(2), stakes(controls), {})

    def add(self, evidence: Evidence, batch: Batch, percent: int) -> Evidence:
        """Return the evidence with a batch.

        Args:
            evidence: Before it.
            batch: What was seen since.
            percent: The candidate's share of live traffic while it was seen; 0 and 100 leave
                nothing to compare live.
        """
        wealth, split = evidence.wealth.copy(), evidence.split.copy()
        history = dict(evidence.history)
        if len(batch.pairs):
            self._settle_pairs(wealth, batch, history)
        if 0 < percent < 100:
            share = Fraction(percent, 100)
            seen = Split(batch.candidate, batch.stable, share / (1 - share))
            for test, bet in self._live(seen, history):
                _settle(wealth, self._rows[test], bet)
            _settle_split(split, seen, share)
        control = self._settle_control(evidence.control, batch, history)
        for name, seconds in batch.stable.latency.items():
            _remember(history, f"live/{name}", seconds)
        return replace(
            evidence,
            wealth=wealth,
            split=split,
            control=control,
            history=history,
            pairs=evidence.pairs + len(batch.pairs),
            requests=evidence.requests + batch.candidate.requests,
        )

    def verdict(self, evidence: Evidence) -> Verdict:
        """Return what the evidence says."""
        parts: dict[tuple[Setting, str], list[float]] = {}
        proofs: dict[tuple[Setting, float], dict[str, float]] = {}
        for test, log in zip(self.tests, log_evidence(evidence.wealth), strict=True):
            if test.purpose == ROLLBACK:
                parts.setdefault((test.setting, test.metric), []).append(log)
            else:
                proofs.setdefault((test.setting, test.purpose), {})[test.metric] = log
        blame = {key: log_mean(logs) for key, logs in parts.items()}
        return Verdict(
            rollback=log_mean(list(blame.values())),
            blame=blame,
            proofs=proofs,
            split=log_mean(log_evidence(evidence.split)),
            control=log_mean(log_evidence(evidence.control)),
        )

    def guilty(self, verdict: Verdict) -> bool:
        """Return whether the evidence demands a rollback."""
        return verdict.rollback >= math.log(1 / self.policy.false_rollback)

    def unproven(self, verdict: Verdict, setting: Setting, multiple: float) -> list[str]:
        """Return the metrics that have yet to prove themselves there."""
        wanted, found = math.log(1 / self.policy.missed), verdict.proofs[setting, multiple]
        return [
            name
            for name, margins in self._metrics
            if setting in margins.prove_in and found[name] < wanted
        ]

    def doubt(self, verdict: Verdict) -> str:
        """Return why the comparison itself cannot be trusted; empty when it can."""
        if verdict.split >= math.log(1 / _WRONG_SPLIT):
            return f"traffic is not split as asked for (e-value {told(verdict.split)})"
        if verdict.control >= math.log(1 / _BROKEN_CONTROL):
            return (
                "replicas of the stable version differ among themselves (e-value "
                f"{told(verdict.control)}), so a difference of versions proves nothing"
            )
        return ""

    def _settle_pairs(self, wealth: Ints, batch: Batch, history: dict[str, Ints]) -> None:
        for name, margins in self._metrics:
            scale = _scale(history, f"shadow/{name}")
            proofs = self._multiples["shadow"]
            for found in comparisons.paired(name, margins, proofs, batch.pairs, scale):
                test = Test("shadow", name, found.purpose, found.part)
                _settle(wealth, self._rows[test], found.bet)
        for name, rows in batch.pairs.latency.items():
            stable = rows[:, 1]
            counts = np.bincount(stable[stable >= 0], minlength=BUCKETS)
            _remember(history, f"shadow/{name}", counts)

    def _live(self, split: Split, history: Mapping[str, Ints]) -> list[tuple[Test, Bet]]:
        return [
            (Test("live", name, found.purpose, found.part), found.bet)
            for name, margins in self._metrics
            for found in comparisons.live(
                name, margins, self._multiples["live"], split, _scale(history, f"live/{name}")
            )
        ]

    def _settle_control(self, control: Ints, batch: Batch, history: Mapping[str, Ints]) -> Ints:
        """Bet on each half of the stable version being worse than the other."""
        halves = batch.control
        if not (halves[0].requests and halves[1].requests):
            return control
        settled = control.copy()
        for side, (accused, other) in enumerate((halves, halves[::-1])):
            for test, bet in self._live(Split(accused, other, Fraction(1)), history):
                if test.purpose == ROLLBACK:
                    _settle(settled, self._control_rows[test] + side, bet)
        return settled


def told(log: float) -> str:
    """Return an e-value for people: 0.03, 12, 4,500, 3e+09."""
    if log > math.log(1e6):
        return f"{math.exp(min(log, 700)):.0e}"
    value = math.exp(log)
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def _settle(wealth: Ints, row: int, bet: Bet) -> None:
    seen = np.flatnonzero(bet.counts)
    if len(seen):
        wealth[row] += bet.counts[seen] @ bet.table[seen]


def _settle_split(split: Ints, seen: Split, share: Fraction) -> None:
    """Bet that the candidate gets more, or less, than its share of the requests."""
    counts = np.array([seen.candidate.requests, seen.stable.requests])
    for row, table in enumerate(_split_tables(share)):
        _settle(split, row, Bet(counts, table))


@lru_cache
def _split_tables(share: Fraction) -> tuple[Ints, Ints]:
    more = (1 - share, -share)
    return factors(more), factors([-x for x in more])


def _scale(history: Mapping[str, Ints], key: str) -> Scale | None:
    found = history.get(key)
    if found is None or int(found.sum()) < HISTORY_WANTED:
        return None
    return scale_of(found)


def _remember(history: dict[str, Ints], key: str, counts: Ints) -> None:
    total = history.get(key, 0) + counts
    history[key] = total // 2 if int(total.sum()) > _HISTORY_KEPT else total
