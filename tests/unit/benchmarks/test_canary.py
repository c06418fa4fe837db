"""The traffic model is what it says, and the engine sees it in its own terms."""

from __future__ import annotations

import math

import numpy as np
import pytest

from benchmarks.canary import model
from benchmarks.canary.looks import look
from benchmarks.canary.outcomes import Floats
from benchmarks.canary.scenarios import SCENARIOS
from benchmarks.canary.world import TICK_S, Requests, Side, World, mean_rate
from serving.rollout.evidence import BUCKETS, NO_REQUESTS, SCORE_STEPS, bucket_of

BY_NAME = {scenario.name: scenario for scenario in SCENARIOS}


def rng(seed: int = 1) -> np.random.Generator:
    return np.random.default_rng(seed)


def world(name: str, reps: int = 200, ticks: int = 1) -> World:
    found = World(BY_NAME[name], reps, rng())
    found.advance(ticks)
    return found


def drawn(name: str, side: Side = "candidate") -> Requests:
    traffic = world(name)
    return traffic.requests(side, traffic.arrivals(1.0))


def every(value: float, reps: int = 200) -> Floats:
    return np.full(reps, float(value))


# --- the traffic -----------------------------------------------------------------------------


@pytest.mark.parametrize("side", ["candidate", "stable"])
def test_a_version_without_fault_answers_as_the_model_says(side: Side) -> None:
    found = drawn("aa", side)
    assert found.counts.mean() == pytest.approx(20 * TICK_S, rel=0.02)
    ttft = np.exp(found.ttft)
    assert np.median(ttft) == pytest.approx(0.300, rel=0.03)
    assert np.percentile(ttft, 95) == pytest.approx(1.2, rel=0.03)
    tpot = np.exp(found.tpot)
    assert tpot.mean() == pytest.approx(0.030, rel=0.01)
    assert tpot.std() == pytest.approx(0.030 / 3, rel=0.03)
    assert found.failed.mean() == pytest.approx(0.005, abs=0.0015)
    assert found.scores.mean() / SCORE_STEPS == pytest.approx(0.70, abs=0.005)
    assert found.scores.std() / SCORE_STEPS == pytest.approx(0.30, abs=0.005)


def test_only_the_candidate_has_the_fault() -> None:
    assert drawn("err2").failed.mean() == pytest.approx(0.02, abs=0.003)
    assert drawn("err2", "stable").failed.mean() == pytest.approx(0.005, abs=0.0015)
    assert drawn("q3").scores.mean() / SCORE_STEPS == pytest.approx(0.67, abs=0.005)
    slow = np.percentile(np.exp(drawn("ttft30").ttft), 95)
    assert slow == pytest.approx(1.2 * 1.3, rel=0.03)
    late = np.exp(drawn("tail").ttft) > 2.0
    assert late.mean() == pytest.approx(0.06 + 0.94 * 0.0122, abs=0.005)


def test_margins_survive_the_rounding_of_scores() -> None:
    weights = np.exp(-(model.Z**2) / 2)
    means = {q: np.average(model.scores(q), weights=weights) for q in (0.70, 0.695, 0.685)}
    assert (means[0.70] - means[0.685]) / SCORE_STEPS == pytest.approx(0.015, abs=2e-5)
    assert (means[0.70] - means[0.695]) / SCORE_STEPS == pytest.approx(0.005, abs=2e-5)


def test_two_answers_to_one_prompt_resemble_each_other() -> None:
    traffic = world("aa")
    candidate, stable = traffic.pairs(np.full(200, 200))
    for metric in ("ttft", "tpot"):
        both = np.corrcoef(getattr(candidate, metric), getattr(stable, metric))
        assert both[0, 1] == pytest.approx(0.5, abs=0.03)
    alike = np.corrcoef(candidate.scores, stable.scores)[0, 1]
    assert 0.4 < alike < 0.5  # the score bends the scale on which it is .5
    assert np.percentile(candidate.ttft, 95) == pytest.approx(math.log(1.2), abs=0.03)


def test_live_requests_alone_show_some_faults() -> None:
    traffic = world("err2_liveonly")
    mirrored, _ = traffic.pairs(np.full(200, 200))
    assert mirrored.failed.mean() == pytest.approx(0.005, abs=0.0015)
    assert drawn("err2_liveonly").failed.mean() == pytest.approx(0.02, abs=0.003)


def test_bursts_bring_more_and_slower_requests_to_both() -> None:
    traffic = world("aa_burst", reps=2000, ticks=30)
    bursting = traffic.rate > 20
    assert set(np.unique(traffic.rate)) == {20.0, 100.0}
    assert bursting.mean() == pytest.approx(0.2, abs=0.02)
    assert traffic.rate.mean() == pytest.approx(mean_rate(traffic.scenario), rel=0.05)
    ends = bursting[:, :-1] & ~bursting[:, 1:]
    assert ends.sum() / bursting[:, :-1].sum() == pytest.approx(TICK_S / 60, abs=0.02)
    counts = np.where(bursting, 10, 0)
    for side in ("candidate", "stable"):
        ttft = traffic.requests(side, counts).ttft
        assert np.median(ttft) == pytest.approx(math.log(0.3 * 1.6), abs=0.03)


def per_replication(requests: Requests) -> Floats:
    of = np.repeat(np.arange(len(requests.counts)), requests.counts.sum(axis=1))
    return np.asarray(np.bincount(of, requests.ttft) / np.bincount(of))


@pytest.mark.parametrize(
    ("name", "deviation", "shared"),
    [("aa_noisy", 0.3, True), ("aa_armdrift", 0.08, False), ("aa_armdrift4", 0.04, False)],
)
def test_latency_drifts_together_or_apart(name: str, deviation: float, shared: bool) -> None:
    traffic = world(name, reps=500)
    counts = np.full((500, 1), 2000)
    candidate = per_replication(traffic.requests("candidate", counts))
    stable = per_replication(traffic.requests("stable", counts))
    assert candidate.std() == pytest.approx(deviation, rel=0.15)
    together = np.corrcoef(candidate, stable)[0, 1]
    assert together > 0.98 if shared else abs(together) < 0.15


def test_noise_brings_errors() -> None:
    found = world("aa_noisy", reps=2000)
    counts = np.full((2000, 1), 100)
    noisy = found.requests("stable", counts)
    # 6.7 % of the time it is four times as bad
    assert noisy.failed.mean() == pytest.approx(0.005 * (1 + 3 * 0.0668), rel=0.1)


def test_replications_that_are_decided_leave() -> None:
    traffic = world("aa_armdrift", reps=5)
    wanted = np.array([True, False, True, False, False])
    traffic.keep(wanted)
    traffic.advance()
    found = look(traffic, weight=every(0.1, 2), mirror=every(0.5, 2), replay_rps=every(5, 2))
    assert len(found.batches) == len(found.exposed) == 2


# --- what the engine sees --------------------------------------------------------------------


def test_latencies_fall_into_the_buckets_of_the_engine() -> None:
    log_s = rng().normal(math.log(0.3), 2.5, 20_000)
    log_s[:3] = [-20.0, math.log(0.0005), 10.0]
    assert model.buckets(log_s).tolist() == [bucket_of(math.exp(value)) for value in log_s]


def test_a_look_counts_every_request_once() -> None:
    traffic = world("err20")
    found = look(traffic, weight=every(0.25), mirror=every(0.0), replay_rps=every(0))
    assert found.exposed.mean() == pytest.approx(50, rel=0.03)
    assert not found.replayed.any()
    for batch, exposed in zip(found.batches, found.exposed, strict=True):
        assert batch.candidate.requests == batch.size == exposed
        arms = (batch.candidate, batch.stable, *batch.control)
        for arm in arms:
            answered = arm.requests - arm.errors
            assert set(arm.latency) == {"ttft_p95", "tpot_p95"}
            for histogram in (*arm.latency.values(), *arm.scores.values()):
                assert histogram.dtype == np.int64
                assert histogram.sum() == answered
            assert arm.latency["ttft_p95"].shape == (BUCKETS,)
            assert arm.scores["quality"].shape == (SCORE_STEPS + 1,)
        first, second = batch.control
        assert first.requests + second.requests == batch.stable.requests
        assert first.errors + second.errors == batch.stable.errors
        both = first.scores["quality"] + second.scores["quality"]
        assert (both == batch.stable.scores["quality"]).all()
    errors = sum(batch.candidate.errors for batch in found.batches)
    assert errors / found.exposed.sum() == pytest.approx(0.20, abs=0.02)
    stable = np.mean([batch.stable.requests for batch in found.batches])
    assert stable == pytest.approx(150, rel=0.03)


def test_a_look_pairs_mirrored_and_replayed_prompts() -> None:
    traffic = world("err20")
    found = look(traffic, weight=every(0), mirror=every(0.5), replay_rps=every(5))
    pairs = np.array([len(batch.pairs) for batch in found.batches])
    assert pairs.mean() == pytest.approx(150, rel=0.03)
    assert found.replayed.mean() == pytest.approx(200, rel=0.03)
    assert not found.exposed.any()
    assert all(batch.candidate is batch.stable is NO_REQUESTS for batch in found.batches)
    for batch in found.batches:
        failed = batch.pairs.errors == 1
        for values in (*batch.pairs.latency.values(), *batch.pairs.scores.values()):
            assert values.shape == (len(batch.pairs), 2)
            assert values.dtype == np.int64
            assert ((values == -1) == failed).all()
    failures = np.concatenate([batch.pairs.errors for batch in found.batches]).mean(axis=0)
    assert failures == pytest.approx([0.20, 0.005], abs=0.01)


def test_stages_mix_within_one_look() -> None:
    traffic = world("aa", reps=3)
    weights = np.array([0.0, 0.5, 1.0])
    mirror = np.array([0.5, 0.0, 0.0])
    found = look(traffic, weight=weights, mirror=mirror, replay_rps=np.zeros(3), idle=True)
    shadow, half, full = found.batches
    assert len(shadow.pairs)
    assert shadow.candidate is NO_REQUESTS
    assert shadow.stable.requests > 100
    assert len(half.pairs) == 0
    assert min(half.candidate.requests, half.stable.requests) > 50
    assert full.stable is NO_REQUESTS
    assert full.candidate.requests > 100


def test_halves_of_the_replicas_drift_apart_only_where_there_are_four() -> None:
    def apart(name: str) -> float:
        traffic = world(name, reps=300)
        found = traffic.halves("stable", np.full(300, 4000))
        half = np.repeat(np.arange(600), found.counts.ravel())
        means = (np.bincount(half, found.ttft) / np.bincount(half)).reshape(-1, 2)
        return float(np.std(means[:, 0] - means[:, 1]))

    assert apart("aa_armdrift4") == pytest.approx(2 * 0.04, rel=0.15)
    assert apart("aa") < 0.04
    single = world("aa_armdrift", reps=2)
    found = look(single, weight=every(0.1, 2), mirror=every(0, 2), replay_rps=every(0, 2))
    assert {batch.control for batch in found.batches} == {(NO_REQUESTS, NO_REQUESTS)}
