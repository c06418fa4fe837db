from __future__ import annotations

from dataclasses import replace

import pytest

from penstock.core.spec import Rollout
from serving.rollout.decide import Action, Hold, Seen, Shift, Stay, next_action
from serving.rollout.judge import Judge
from serving.rollout.record import Record, first_record

POLICY = Rollout()
JUDGE = Judge(POLICY)
BEGUN = 1000.0


def _ramp(*, arrived: int, counted_s: float) -> Record:
    """Return a first step that has seen requests, the last of them after so many seconds."""
    first = first_record("m-v2", "m-v1", POLICY, BEGUN)
    return replace(
        first,
        phase="ramp",
        weight=10,
        arrived=arrived,
        evidence_at=BEGUN + counted_s,
    )


def _decide(record: Record, after_s: float, judge: Judge = JUDGE) -> Action:
    routed = {"m-v2": record.weight, "m-v1": 100 - record.weight}
    seen = Seen(BEGUN + after_s, ready=True, warm=True, routed=routed)
    return next_action(record, judge.verdict(record.evidence), seen, judge)


def test_traffic_too_thin_for_a_proof_proceeds_on_what_shadow_has_proven() -> None:
    action = _decide(_ramp(arrived=61, counted_s=61), 61)
    assert isinstance(action, Shift)
    assert (action.phase, action.weight) == ("ramp", 25)
    assert "1 requests per second are too few to prove error_rate" in action.reason
    assert "shadow has proven it" in action.reason


@pytest.mark.parametrize(
    ("arrived", "counted_s", "after_s"),
    [
        (1220, 61, 61),  # 20 per second can prove it
        (58, 58, 58),  # not yet a minute
        (30, 30, 100),  # a source that went down looks silent, not thin
        (0, -10, 100),  # nor has one that never answered
    ],
)
def test_traffic_is_not_called_thin_too_soon(
    arrived: int, counted_s: float, after_s: float
) -> None:
    action = _decide(_ramp(arrived=arrived, counted_s=counted_s), after_s)
    assert action == Stay("not proven yet: error_rate, tpot_p95, ttft_p95")


def test_whoever_wants_to_wait_for_the_proof_waits() -> None:
    judge = Judge(Rollout(thin="wait"))
    assert isinstance(_decide(_ramp(arrived=61, counted_s=61), 61, judge), Stay)


def test_what_shadow_cannot_prove_is_waited_for() -> None:
    live = POLICY.metrics["error_rate"].model_copy(update={"prove_in": ["live"]})
    judge = Judge(Rollout(metrics={**POLICY.metrics, "error_rate": live}))
    assert isinstance(_decide(_ramp(arrived=61, counted_s=61), 61, judge), Stay)


def test_prompts_that_ran_out_are_named_as_the_reason() -> None:
    record = replace(first_record("m-v2", "m-v1", POLICY, BEGUN), phase="shadow")
    seen = Seen(BEGUN + 5, ready=True, warm=True, exhausted=True)
    action = next_action(record, JUDGE.verdict(record.evidence), seen, JUDGE)
    assert isinstance(action, Hold)
    assert action.doubt == "inconclusive"
    assert "every prompt was replayed" in action.reason
    assert "quality" in action.reason
