"""Weighs what was seen of two versions: reasons to roll back, proofs to promote, and doubts.

The e-values of all metrics are averaged: that is an e-value again, whatever their dependence, and
reaches 1/false_rollback with at most that probability while no metric is worse than `tolerate`. To
promote, every metric must prove by itself that it is not worse by `reject` (an intersection-union
test, which needs no correction; Berger, Technometrics 24 (1982)). What was not measured proves
nothing, and accuses nobody.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np

from penstock.core.spec import Rollout
from serving.rollout.bets import Scale, difference_counts, scale_of
from serving.rollout.comparisons import ROLLBACK, Comparison, Part
from serving.rollout.eprocess import BETS, UNIT, factors, log_evidence, log_mean, stakes
from serving.rollout.evidence import BUCKETS, Arm, Batch, Ints
from serving.rollout.matching import NOBODY, Waiting, match

Setting = Literal["shadow", "live"]
PROOF_IN_SHADOW = 1.0
HISTORY_WANTED = 40
"""Latencies of the stable version before its 95th percentile is a place to bet at."""

_HISTORY_KEPT = 20_000
_NONE = np.zeros(0, dtype=np.int64)
SLOW = 0.05
"""Share of requests beyond the 95th percentile."""

_WRONG_SPLIT = 1e-4
_BROKEN_CONTROL = 0.01


class Test(NamedTuple):
    """One e-process."""

    setting: Setting
    metric: str
    part: Part


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """Everything that was learnt from all batches so far."""

    wealth: Ints
    """(tests, bets) log-wealth, in the order of `Judge.tests`."""

    split: Ints
    """(2, bets): the candidate was drawn more, or less, often than its share."""

    control: Ints
    """(2 · accusing live tests, bets): halves of the stable version, each accused by the other."""

    history: Mapping[str, Ints]
    """`setting/metric` → (BUCKETS,) latencies of the stable version."""

    waiting: Mapping[str, Waiting]
    """Metric → live scores without a partner of the other version."""

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
        self._metrics = sorted(policy.metrics.items())
        multiples = tuple(dict.fromkeys(policy.proof[: len(policy.steps)]))
        self._shadow = [Comparison(n, m, (PROOF_IN_SHADOW,)) for n, m in self._metrics]
        self._live = [Comparison(n, m, multiples) for n, m in self._metrics]
        self.tests = [
            Test("shadow", each.name, part) for each in self._shadow for part in each.parts
        ]
        self.tests += [Test("live", each.name, part) for each in self._live for part in each.parts]
        self._rows = {test: row for row, test in enumerate(self.tests)}
        self._scored = [each for each in self._live if policy.metrics[each.name].kind == "score"]
        self._counted = [each for each in self._live if policy.metrics[each.name].kind != "score"]
        self._paired_tables = {
            (each.name, part): each.paired_table(part)
            for each in (*self._shadow, *self._scored)
            for part in each.parts
        }
        self._live_tables: dict[int, dict[tuple[str, Part], Ints]] = {}
        accusing = [t for t in self.tests if t.setting == "live" and t.part.purpose == ROLLBACK]
        self._control_rows = {test: 2 * row for row, test in enumerate(accusing)}

    def start(self) -> Evidence:
        """Return the evidence of nothing."""
        controls = 2 * len(self._control_rows)
        return Evidence(stakes(len(self.tests)), stakes(2), stakes(controls), {}, {})

    def add(self, evidence: Evidence, batch: Batch, percent: int) -> Evidence:
        """Return the evidence with a batch.

        Args:
            evidence: Before it.
            batch: What was seen since.
            percent: The candidate's share of live traffic while it was seen; 0 and 100 leave
                nothing to compare live.
        """
        wealth, split = evidence.wealth.copy(), evidence.split.copy()
        history, waiting = dict(evidence.history), dict(evidence.waiting)
        if len(batch.pairs):
            self._settle_pairs(wealth, batch, history)
        if 0 < percent < 100:
            for test, gain in self._gains(batch.candidate, batch.stable, percent, history):
                wealth[self._rows[test]] += gain
            drawn = np.array([batch.candidate.draws, batch.stable.draws])
            for row, table in enumerate(_split_tables(percent)):
                split[row] += drawn @ table
            self._settle_scores(wealth, batch, waiting, evidence.requests)
        control = self._settle_control(evidence.control, batch, history)
        for name, seconds in batch.stable.latency.items():
            _remember(history, f"live/{name}", seconds)
        return replace(
            evidence,
            wealth=wealth,
            split=split,
            control=control,
            history=history,
            waiting=waiting,
            pairs=evidence.pairs + len(batch.pairs),
            requests=evidence.requests + batch.candidate.requests,
        )

    def verdict(self, evidence: Evidence) -> Verdict:
        """Return what the evidence says."""
        parts: dict[tuple[Setting, str], list[float]] = {}
        proofs: dict[tuple[Setting, float], dict[str, float]] = {}
        for test, log in zip(self.tests, log_evidence(evidence.wealth), strict=True):
            if test.part.purpose == ROLLBACK:
                parts.setdefault((test.setting, test.metric), []).append(log)
            else:
                proofs.setdefault((test.setting, test.part.purpose), {})[test.metric] = log
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

    def fewest(self, multiple: float, percent: int) -> int:
        """Return how many live requests of both versions a proof takes if the candidate is perfect.

        Nobody fails, and only the stable version, by the definition of its 95th percentile, is
        slow. It depends on the policy alone: a candidate cannot look unprovable by failing.

        Args:
            multiple: Of `reject`, that must be excluded.
            percent: The candidate's share.
        """
        share, tables = percent / 100, self._tables_at(percent)
        wanted = math.log(len(BETS) / self.policy.missed)
        found = 0.0
        for each in self._counted:  # how many answers will be scored, nobody knows
            margins = self.policy.metrics[each.name]
            if "live" not in margins.prove_in:
                continue
            (proof,) = (part for part in each.parts if part.purpose == multiple)
            candidate_fine, _, stable_bad = tables[each.name, proof]
            bad = SLOW if margins.kind == "latency" else 0.0
            growth = (share * candidate_fine + (1 - share) * bad * stable_bad) / UNIT
            found = max(found, wanted / float(growth.max()))
        return math.ceil(found)

    def fewest_pairs(self) -> tuple[int, str]:
        """Return how many pairs a proof in shadow takes if the candidate is perfect, and of what.

        Both versions answer alike, and only the stable version is ever slow, as in `fewest`.
        Nothing and 0 where nothing is to be proven in shadow.
        """
        wanted, found = math.log(1 / self.policy.missed), (0, "")
        for each in self._shadow:
            margins = self.policy.metrics[each.name]
            if "shadow" not in margins.prove_in:
                continue
            (proof,) = (part for part in each.parts if part.purpose == PROOF_IN_SHADOW)
            table = self._paired_tables[each.name, proof]
            better, alike = table[0], table[len(table) // 2]
            bad = SLOW if margins.kind == "latency" else 0.0
            growth = ((1 - bad) * alike + bad * better) / UNIT
            # the mean over the bets grows: no less than the best alone, less what all of them cost
            most = math.ceil((wanted + math.log(len(BETS))) / float(growth.max()))
            pairs = bisect_left(range(most), wanted, key=lambda n: log_mean((n * growth).tolist()))
            found = max(found, (pairs, each.name))
        return found

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
        for each in self._shadow:
            scale = _scale(history, f"shadow/{each.name}")
            for part, counts in each.pairs(batch.pairs, scale):
                row = self._rows[Test("shadow", each.name, part)]
                wealth[row] += counts @ self._paired_tables[each.name, part]
        for name, rows in batch.pairs.latency.items():
            stable = rows[:, 1]
            counts = np.bincount(stable[stable >= 0], minlength=BUCKETS)
            _remember(history, f"shadow/{name}", counts)

    def _settle_scores(
        self, wealth: Ints, batch: Batch, waiting: dict[str, Waiting], salt: int
    ) -> None:
        for each in self._scored:
            arms = (batch.candidate, batch.stable)
            new = [arm.scores.get(each.name, _NONE) for arm in arms]
            if not any(scores.any() for scores in new):
                continue
            before = waiting.get(each.name, NOBODY)
            pairs, waiting[each.name] = match(before, new[0], new[1], salt)
            counts = difference_counts(pairs[:, 0], pairs[:, 1])
            for part in each.parts:
                row = self._rows[Test("live", each.name, part)]
                wealth[row] += counts @ self._paired_tables[each.name, part]

    def _gains(
        self, candidate: Arm, stable: Arm, percent: int, history: Mapping[str, Ints]
    ) -> Iterator[tuple[Test, Ints]]:
        """Yield what live requests add to the log-wealth of each test."""
        tables = self._tables_at(percent)
        for each in self._counted:
            scale = _scale(history, f"live/{each.name}")
            for part, counts in each.live(candidate, stable, scale):
                yield Test("live", each.name, part), counts @ tables[each.name, part]

    def _tables_at(self, percent: int) -> Mapping[tuple[str, Part], Ints]:
        if percent not in self._live_tables:
            ratio = Fraction(percent, 100 - percent)
            self._live_tables[percent] = {
                (each.name, part): each.live_table(part, ratio)
                for each in self._counted
                for part in each.parts
            }
        return self._live_tables[percent]

    def _settle_control(self, control: Ints, batch: Batch, history: Mapping[str, Ints]) -> Ints:
        """Bet on each half of the stable version being worse than the other."""
        halves = batch.control
        if not (halves[0].requests and halves[1].requests):
            return control
        settled = control.copy()
        for side, (accused, other) in enumerate((halves, halves[::-1])):
            for test, gain in self._gains(accused, other, 50, history):
                if test.part.purpose == ROLLBACK:
                    settled[self._control_rows[test] + side] += gain
        return settled


def told(log: float) -> str:
    """Return an e-value for people: 0.03, 12, 4,500, 3e+09."""
    if log > math.log(1e6):
        return f"{math.exp(min(log, 700)):.0e}"
    value = math.exp(log)
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


@lru_cache
def _split_tables(percent: int) -> tuple[Ints, Ints]:
    """Return the tables for a candidate that gets more, or less, than its share."""
    share = Fraction(percent, 100)
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
