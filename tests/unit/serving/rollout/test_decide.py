from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from penstock.core.spec import Rollout
from serving.rollout.decide import Action, Hold, Resume, Seen, Shift, Stay, next_action
from serving.rollout.judge import Judge
from serving.rollout.record import Command, Phase, Record, first_record

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


def _asked_to_roll_back(phase: Phase, weight: int, command: Command = "rollback") -> Action:
    first = first_record("m-v2", "m-v1", POLICY, BEGUN)
    return _decide(replace(first, phase=phase, weight=weight, command=command), 1)


def test_one_that_nobody_looks_after_is_rolled_back_and_no_person_is_named() -> None:
    action = _asked_to_roll_back("ramp", 25, "abandon")
    assert isinstance(action, Shift)
    assert (action.phase, action.weight) == ("rolling_back", 0)
    assert "nobody looked after it" in action.reason


def test_who_never_was_in_the_route_need_not_leave_it() -> None:
    action = _asked_to_roll_back("deploying", 0)
    assert action == Shift("rolled_back", 0, "a person asked for it")
    assert _asked_to_roll_back("warmup", 0) == Shift("rolling_back", 0, "a person asked for it")


@pytest.mark.parametrize("phase", ["warmup", "shadow", "ramp", "soak"])
def test_a_candidate_that_somebody_deleted_gets_no_more_users(phase: Phase) -> None:
    record = replace(first_record("m-v2", "m-v1", POLICY, BEGUN), phase=phase, weight=25)
    seen = Seen(BEGUN + 1, candidate_exists=False)
    action = next_action(record, JUDGE.verdict(record.evidence), seen, JUDGE)
    assert action == Shift("rolling_back", 0, "somebody deleted the candidate")
    after = replace(record, phase="rolling_back", weight=0)
    action = next_action(after, JUDGE.verdict(record.evidence), seen, JUDGE)
    assert isinstance(action, Shift)
    assert action.phase == "rolled_back", "a route to nobody is never seen to hold"


def test_a_candidate_that_is_not_made_yet_is_waited_for() -> None:
    record = first_record("m-v2", "m-v1", POLICY, BEGUN)
    seen = Seen(BEGUN + 1, candidate_exists=False, why="it was deleted")
    action = next_action(record, JUDGE.verdict(record.evidence), seen, JUDGE)
    assert isinstance(action, Stay)


@pytest.mark.parametrize("why", ["pod p: not scheduled: 1 Insufficient cpu", ""])
def test_a_candidate_that_does_not_start_is_rolled_back_with_the_reason(why: str) -> None:
    first = first_record("m-v2", "m-v1", POLICY, BEGUN)
    verdict, because = JUDGE.verdict(first.evidence), f": {why}" if why else ""
    waiting = Seen(BEGUN + POLICY.ready_within_s, why=why)
    action = next_action(first, verdict, waiting, JUDGE)
    assert action == Stay(f"the candidate is not ready{because}")
    action = next_action(first, verdict, replace(waiting, now=waiting.now + 1), JUDGE)
    assert action == Shift("rolled_back", 0, f"the candidate is not ready after 181 s{because}")


def _without_stable(phase: Phase, weight: int, **changed: Any) -> Record:
    first = first_record("m-v2", "m-v1", POLICY, BEGUN)
    return replace(first, phase=phase, weight=weight, **changed)


def _orphaned(record: Record, *, after_s: float = 1.0, ready: bool = True) -> Action:
    seen = Seen(BEGUN + after_s, ready=ready, warm=True, stable_exists=False)  # nothing resolves
    return next_action(record, JUDGE.verdict(record.evidence), seen, JUDGE)


@pytest.mark.parametrize("command", ["", "rollback", "abandon", "pause", "resume"])
@pytest.mark.parametrize("after_s", [1.0, 1e6])
def test_users_are_not_led_back_to_a_stable_version_that_somebody_deleted(
    command: Command, after_s: float
) -> None:
    action = _orphaned(_without_stable("ramp", 25, command=command), after_s=after_s)
    assert isinstance(action, Hold)
    assert action.doubt == "edited"
    assert "somebody deleted m-v1, the stable version" in action.reason
    held = _without_stable("ramp", 25, held="edited", held_at=BEGUN, reason=action.reason)
    assert _orphaned(held, after_s=1e6) == Stay(action.reason), "no deadline does it"


def test_a_candidate_that_has_everybody_takes_over_from_a_stable_version_that_is_gone() -> None:
    action = _orphaned(_without_stable("soak", 100), after_s=5000)
    assert isinstance(action, Shift)
    assert (action.phase, action.weight) == ("promoted", 100)
    assert isinstance(_orphaned(_without_stable("soak", 100), ready=False), Hold)


def test_a_person_may_promote_without_a_stable_version_and_go_back_where_nobody_moves() -> None:
    action = _orphaned(_without_stable("shadow", 0, command="promote"))
    assert isinstance(action, Shift)
    assert (action.phase, action.weight) == ("soak", 100)
    action = _orphaned(_without_stable("shadow", 0, command="rollback"))
    assert isinstance(action, Shift)
    assert action.phase == "rolling_back"


def test_when_it_is_there_again_the_rollout_goes_on() -> None:
    held = _without_stable("ramp", 10, held="edited", held_at=BEGUN, reason="somebody deleted m-v1")
    assert isinstance(_decide(held, 1), Resume)


def test_a_soak_of_a_day_is_not_ended_by_a_steps_deadline_of_an_hour() -> None:
    policy = Rollout(soak_s=86_400.0)
    judge, first = Judge(policy), first_record("m-v2", "m-v1", policy, BEGUN)
    watched = replace(first, phase="ramp", step=2, weight=50, settled_at=BEGUN + 1)
    later = replace(watched, evidence_at=BEGUN + 7200, read_at=BEGUN + 7200)
    assert isinstance(_decide(later, 7200, judge), Stay)
    soaked = replace(watched, phase="soak", weight=100)
    seen = Seen(BEGUN + 7200, ready=True, warm=True, routed=None)
    assert isinstance(next_action(soaked, judge.verdict(first.evidence), seen, judge), Stay)
    late = replace(seen, now=BEGUN + 86_400 + 3601)
    action = next_action(soaked, judge.verdict(first.evidence), late, judge)
    assert isinstance(action, Shift)
    assert action.phase == "rolling_back"
