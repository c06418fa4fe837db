"""What the judge makes of simulated versions; seeds are fixed, so no run differs from another."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from penstock.core.spec import Margins, Rollout
from serving.rollout.evidence import (
    BUCKETS,
    SCORE_STEPS,
    Arm,
    Batch,
    Ints,
    Pairs,
    bound_of,
    bucket_of,
    buckets_in,
    buckets_within,
)
from serving.rollout.judge import Evidence, Judge

POLICY = Rollout()
JUDGE = Judge(POLICY)


class Versions:
    """A candidate that is worse as told, and a stable version; latencies in units of its own."""

    def __init__(self, seed: int, *, err: float = 0.0, slow: float = 1.0, lost: float = 0.0):
        self._rng = np.random.default_rng(seed)
        self._err, self._slow, self._lost = err, slow, lost

    def _latency(self, n: int, factor: float) -> Ints:
        seconds = 0.3 * factor * np.exp(0.5 * self._rng.standard_normal(n))
        return np.array([bucket_of(s) for s in seconds], dtype=np.int64)

    def _errors(self, n: int, extra: float) -> Ints:
        return (self._rng.random(n) < 0.005 + extra).astype(np.int64)

    def _scores(self, n: int, lost: float) -> Ints:
        return (self._rng.random(n) < 0.9 - lost).astype(np.int64) * SCORE_STEPS

    def pairs(self, n: int = 200) -> Pairs:
        def both(draw: Any, worse: float, well: float) -> Ints:
            return np.stack([draw(n, worse), draw(n, well)], axis=1)

        return Pairs(
            both(self._errors, self._err, 0.0),
            {
                "ttft_p95": both(self._latency, self._slow, 1.0),
                "tpot_p95": both(self._latency, 1.0, 1.0),
            },
            {"quality": both(self._scores, self._lost, 0.0)},
        )

    def arm(self, n: int, *, candidate: bool) -> Arm:
        slow, err = (self._slow, self._err) if candidate else (1.0, 0.0)
        latency = {
            "ttft_p95": np.bincount(self._latency(n, slow), minlength=BUCKETS),
            "tpot_p95": np.bincount(self._latency(n, 1.0), minlength=BUCKETS),
        }
        return Arm(n, int(self._errors(n, err).sum()), latency)


def _shadow(versions: Versions, looks: int, judge: Judge = JUDGE) -> Evidence:
    evidence = judge.start()
    for _ in range(looks):
        evidence = judge.add(evidence, Batch(pairs=versions.pairs()), 0)
        if judge.guilty(judge.verdict(evidence)):
            break
    return evidence


def _live(versions: Versions, looks: int, percent: int, judge: Judge = JUDGE) -> Evidence:
    evidence = judge.start()
    for _ in range(looks):
        batch = Batch(
            candidate=versions.arm(4 * percent, candidate=True),
            stable=versions.arm(400 - 4 * percent, candidate=False),
        )
        evidence = judge.add(evidence, batch, percent)
        if judge.guilty(judge.verdict(evidence)):
            break
    return evidence


def test_an_equal_version_proves_itself_in_shadow() -> None:
    verdict = JUDGE.verdict(_shadow(Versions(1), 90))
    assert not JUDGE.guilty(verdict)
    assert JUDGE.unproven(verdict, "shadow", 1.0) == []
    assert JUDGE.doubt(verdict) == ""


@pytest.mark.parametrize(
    ("worse", "metric"),
    [
        ({"err": 0.03}, "error_rate"),
        ({"slow": 1.5}, "ttft_p95"),
        ({"lost": 0.06}, "quality"),
    ],
)
def test_a_worse_version_is_blamed_for_what_is_worse(worse: dict[str, float], metric: str) -> None:
    verdict = JUDGE.verdict(_shadow(Versions(2, **worse), 40))
    assert JUDGE.guilty(verdict)
    assert max(verdict.blame.items(), key=lambda item: item[1])[0] == ("shadow", metric)
    assert metric in JUDGE.unproven(verdict, "shadow", 1.0)


@pytest.mark.parametrize("worse", [{"err": 0.05}, {"slow": 1.8}])
def test_a_version_worse_only_live_is_blamed_live(worse: dict[str, float]) -> None:
    verdict = JUDGE.verdict(_live(Versions(3, **worse), 60, 10))
    assert JUDGE.guilty(verdict)
    assert max(verdict.blame.items(), key=lambda item: item[1])[0][0] == "live"


def test_an_equal_version_proves_itself_live_step_by_step() -> None:
    verdict = JUDGE.verdict(_live(Versions(4), 60, 10))
    assert not JUDGE.guilty(verdict)
    assert JUDGE.unproven(verdict, "live", 4.0) == []


def test_false_rollbacks_are_as_rare_as_promised() -> None:
    """At the edge of the null (every metric as bad as tolerated), looked at after every batch."""
    policy = Rollout(
        metrics={"error_rate": Margins(kind="errors", tolerate=0.02, reject=0.05)},
        false_rollback=0.05,
    )
    judge, rng, wrong, runs = Judge(policy), np.random.default_rng(5), 0, 400
    for _ in range(runs):
        evidence = judge.start()
        for _ in range(40):
            errors = (rng.random((25, 2)) < [0.07, 0.05]).astype(np.int64)
            evidence = judge.add(evidence, Batch(pairs=Pairs(errors)), 0)
            if judge.guilty(judge.verdict(evidence)):
                wrong += 1
                break
    assert wrong / runs <= 0.05


def test_what_is_not_measured_neither_accuses_nor_proves() -> None:
    versions = Versions(6)
    evidence = JUDGE.start()
    for _ in range(40):
        whole = versions.pairs()
        evidence = JUDGE.add(evidence, Batch(pairs=Pairs(whole.errors, whole.latency)), 0)
    verdict = JUDGE.verdict(evidence)
    assert verdict.proofs["shadow", 1.0]["quality"] == 0.0
    assert JUDGE.unproven(verdict, "shadow", 1.0) == ["quality"]
    undefined = Pairs(np.zeros((50, 2), dtype=np.int64), {"ttft_p95": np.full((50, 2), -1)})
    again = JUDGE.verdict(JUDGE.add(evidence, Batch(pairs=undefined), 0))
    assert again.blame["shadow", "ttft_p95"] == verdict.blame["shadow", "ttft_p95"]


def test_a_split_that_is_not_as_asked_for_is_doubted() -> None:
    evidence = JUDGE.add(JUDGE.start(), Batch(candidate=Arm(draws=400), stable=Arm()), 10)
    assert "not split as asked" in JUDGE.doubt(JUDGE.verdict(evidence))
    evidence = JUDGE.add(JUDGE.start(), Batch(candidate=Arm(draws=40), stable=Arm(draws=360)), 10)
    assert JUDGE.doubt(JUDGE.verdict(evidence)) == ""


def test_a_conversation_counts_once_for_the_split_whatever_it_asks() -> None:
    chatty = Batch(candidate=Arm(requests=4000, draws=40), stable=Arm(requests=360, draws=360))
    assert JUDGE.doubt(JUDGE.verdict(JUDGE.add(JUDGE.start(), chatty, 10))) == ""


def test_how_many_requests_a_proof_takes_depends_on_policy_and_share_alone() -> None:
    assert 2000 < JUDGE.fewest(4.0, 10) < 4000
    assert JUDGE.fewest(2.0, 10) > JUDGE.fewest(4.0, 10)
    assert JUDGE.fewest(4.0, 5) > JUDGE.fewest(4.0, 10)
    errors = Judge(Rollout(metrics={"error_rate": Rollout().metrics["error_rate"]}))
    needed = errors.fewest(4.0, 10)
    for share, proven in ((0.5, False), (1.05, True)):
        count = round(needed * share)
        batch = Batch(candidate=Arm(count // 10), stable=Arm(count - count // 10))
        verdict = errors.verdict(errors.add(errors.start(), batch, 10))
        assert (errors.unproven(verdict, "live", 4.0) == []) is proven


def test_how_many_prompts_a_proof_takes_is_known_to_the_last_one() -> None:
    pairs, metric = JUDGE.fewest_pairs()
    assert metric == "error_rate"
    for count, proven in ((pairs - 1, False), (pairs, True)):
        perfect = Batch(pairs=Pairs(np.zeros((count, 2), dtype=np.int64)))
        verdict = JUDGE.verdict(JUDGE.add(JUDGE.start(), perfect, 0))
        assert (metric not in JUDGE.unproven(verdict, "shadow", 1.0)) is proven
    live = {"error_rate": POLICY.metrics["error_rate"].model_copy(update={"prove_in": ["live"]})}
    assert Judge(Rollout(metrics=live)).fewest_pairs() == (0, "")


def test_replicas_that_differ_among_themselves_are_doubted() -> None:
    evidence = JUDGE.start()
    for _ in range(10):
        halves = (Arm(200, 30), Arm(200, 1))
        evidence = JUDGE.add(evidence, Batch(control=halves), 10)
    verdict = JUDGE.verdict(evidence)
    assert "differ among themselves" in JUDGE.doubt(verdict)
    assert not JUDGE.guilty(verdict)


def test_margins_are_rounded_to_the_careful_side() -> None:
    for ratio in (1.05, 1.1, 1.15, 1.3, 2.2):
        assert bound_of(buckets_in(ratio)) / bound_of(0) >= ratio * (1 - 1e-9)
        assert bound_of(buckets_within(ratio)) / bound_of(0) <= ratio * (1 + 1e-9)
    assert bucket_of(bound_of(100) * 1.001) == 100
    assert (bucket_of(0.0), bucket_of(1e9)) == (0, BUCKETS - 1)


def test_evidence_does_not_depend_on_how_it_is_cut() -> None:
    """Errors and scores: the same wealth from one batch or from many."""
    versions = Versions(7)
    whole = versions.pairs(300)
    errors_only = Rollout(metrics={"error_rate": POLICY.metrics["error_rate"]})
    judge = Judge(errors_only)
    once = judge.add(judge.start(), Batch(pairs=Pairs(whole.errors)), 0)
    many = judge.start()
    for part in np.array_split(whole.errors, 17):
        many = judge.add(many, Batch(pairs=Pairs(part)), 0)
    assert (once.wealth == many.wealth).all()
    assert math.isfinite(judge.verdict(once).rollback)
