"""When a champion is said to have become worse, and how seldom that is wrong."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.errors import ConfigurationError
from penstock.core.schedules import Schedule
from penstock.core.spec import Margins, ModelSpec
from pipelines.schedules import drift
from pipelines.schedules.drift import BASELINE, Losses, Watched, check, looked, losses_of, told
from serving.rollout.evidence import SCORE_STEPS, Arm

ERRORS = Margins(kind="errors", tolerate=0.001, reject=0.005)
HELPFUL = Margins(kind="score", tolerate=0.01, reject=0.05)


def _failed(requests: int, errors: int) -> Losses:
    return losses_of(Arm(requests, errors), "error_rate", ERRORS)


def _scored(*scores: float) -> Losses:
    steps = np.zeros(SCORE_STEPS + 1, dtype=np.int64)
    for score in scores:
        steps[round(score * SCORE_STEPS)] += 1
    return losses_of(Arm(scores={"helpful": steps}), "helpful", HELPFUL)


def _baseline(errors: int = 10) -> Watched:
    return looked(None, "m-v1", _failed(BASELINE, errors), ERRORS)


@pytest.mark.parametrize("seed", range(10))
def test_what_stays_the_same_is_no_drift(seed: int) -> None:
    rng = np.random.default_rng(seed)
    known = _baseline()
    for _ in range(2880):  # a day
        known = looked(known, "m-v1", _failed(60, int(rng.binomial(60, 0.01))), ERRORS)
        assert not known.alarm


@pytest.mark.parametrize(("rate", "within"), [(0.05, 4_000), (0.10, 600), (0.5, 120)])
def test_what_fails_more_often_is_found(rate: float, within: int) -> None:
    for seed in range(10):
        rng, known = np.random.default_rng(seed), _baseline()
        while not known.alarm:
            assert known.later < within
            known = looked(known, "m-v1", _failed(20, int(rng.binomial(20, rate))), ERRORS)


def test_the_sooner_the_better_also_after_a_long_good_time() -> None:
    known = _baseline()
    for _ in range(10_000):
        known = looked(known, "m-v1", _failed(60, 0), ERRORS)
    later = known.later
    while not known.alarm:
        known = looked(known, "m-v1", _failed(20, 4), ERRORS)
    assert known.later - later <= 120, "nothing that was won before is lost now"


def test_scores_fall() -> None:
    known = looked(None, "m-v1", _scored(*[0.9, 0.7] * (BASELINE // 2)), HELPFUL)
    for _ in range(200):
        known = looked(known, "m-v1", _scored(0.9, 0.7, 0.8), HELPFUL)
    assert not known.alarm
    looks = 0
    while not known.alarm:
        known, looks = looked(known, "m-v1", _scored(0.5, 0.5, 0.4), HELPFUL), looks + 1
    assert looks < 60
    said = told(known, "helpful", HELPFUL)
    assert said.startswith("drift: helpful of m-v1 is 0.7")
    assert said.endswith("and was 0.800 in its first 1000")


@given(
    lost=st.integers(0, BASELINE - 1),
    mean=st.floats(0, 1),
    bet=st.sampled_from(drift._BETS),
)
def test_no_bet_is_expected_to_win_while_nothing_is_worse(
    lost: int, mean: float, bet: float
) -> None:
    most = drift.upper(lost / BASELINE, BASELINE) + ERRORS.tolerate
    one = [
        math.exp(drift._won(_failed(1, failed), most, most + bet * ERRORS.reject))
        for failed in (0, 1)
    ]
    mean = min(mean, most)
    assert (1 - mean) * one[0] + mean * one[1] <= 1 + 1e-9


def test_the_bound_is_hoeffdings() -> None:
    assert drift.upper(0.0, 1000) == pytest.approx(1 - 0.001 ** (1 / 1000))
    assert 0.01 < drift.upper(0.01, 1000) < 0.03
    assert drift.upper(1.0, 1000) == 1.0


def test_another_version_begins_anew_and_no_traffic_says_nothing() -> None:
    known = looked(_baseline(), "m-v1", _failed(20, 10), ERRORS)
    assert looked(known, "m-v1", _failed(0, 0), ERRORS) == known
    assert looked(known, "m-v2", _failed(20, 0), ERRORS) == Watched("m-v2", 20)
    alarmed = looked(known, "m-v1", _failed(200, 100), ERRORS)
    assert alarmed.alarm
    assert "is 50.00% in 220 requests, and was 1.00% in its first 1000" in told(
        alarmed, "error_rate", ERRORS
    )
    again = alarmed.again()
    assert (again.requests, again.later, again.alarm) == (BASELINE, 0, False)


_SPEC = {"name": "m", "source": "hf://a/b"}


def _schedule(*on: str) -> Schedule:
    body = {"name": "n", "model": "m", "spec": _SPEC, "when": {"every_s": 86400}, "on": list(on)}
    return Schedule.model_validate(body)


def test_only_what_is_counted_can_drift() -> None:
    helpful = {"kind": "score", "tolerate": 0.01, "reject": 0.05, "prove_in": ["live"]}
    metrics = {"error_rate": ERRORS.model_dump(), "helpful": helpful}
    model = ModelSpec.model_validate({**_SPEC, "rollout": {"metrics": metrics}})
    check(_schedule("drift:helpful", "drift:error_rate", "version:base"), model)
    with pytest.raises(ConfigurationError, match=r"rollout\.metrics: error_rate, helpful; "):
        check(_schedule("drift:ttft_p95"), model)
    shadow = ModelSpec.model_validate(_SPEC)  # its quality is scored in shadow alone
    with pytest.raises(ConfigurationError, match="whose prove_in has live"):
        check(_schedule("drift:quality"), shadow)
    there = ModelSpec.model_validate({**_SPEC, "target": {"kserve": {}}})
    with pytest.raises(ConfigurationError, match="engines on a cluster keep no scores"):
        check(_schedule("drift:quality"), there)
    with pytest.raises(ValueError, match="version:NAME, alias:NAME@ALIAS or drift:METRIC"):
        _schedule("drift:a@b")
