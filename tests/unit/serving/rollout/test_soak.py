"""The time that a weight must last is the time for which users met it and were watched."""

from __future__ import annotations

from dataclasses import replace

import pytest

from penstock.core.spec import Rollout
from serving.rollout import events
from serving.rollout.decide import Hold, Resume, Seen, Shift, Stay
from serving.rollout.evidence import Arm, Batch
from serving.rollout.judge import Judge
from serving.rollout.record import NOT_KEPT, Phase, Record, first_record
from serving.rollout.step import LIVE, Step, step

POLICY = Rollout(steps=[25, 50], proof=[4.0], soak_s=5.0)
JUDGE = Judge(POLICY)
BEGUN = 1000.0
READ = Batch(cursors={LIVE: "somewhere"})


def _in(phase: Phase, weight: int) -> Record:
    """Return the rollout at a weight that asks for no proof of its own."""
    first = first_record("m-v2", "m-v1", POLICY, BEGUN)
    return replace(first, phase=phase, step=1, weight=weight)


def _look(record: Record, after_s: float, batch: Batch, *, routed: int | None = None) -> Step:
    share = record.weight if routed is None else routed
    weights = {"m-v2": share, "m-v1": 100 - share}
    return step(record, batch, Seen(BEGUN + after_s, ready=True, routed=weights), JUDGE)


def test_a_gateway_that_is_slow_to_follow_does_not_shorten_a_step() -> None:
    made = _look(_in("ramp", 50), 10, READ, routed=25)
    assert made.action == Stay("50 % are not routed yet: {'m-v2': 25, 'm-v1': 75}")
    made = _look(made.record, 20, READ)
    assert made.action == Stay("50 % watched for 0 of 5 s")
    made = _look(made.record, 24, READ)
    assert made.action == Stay("50 % watched for 4 of 5 s")
    made = _look(made.record, 25, READ)
    assert isinstance(made.action, Shift)
    assert (made.action.phase, made.record.settled_at) == ("soak", 0.0)


def test_a_source_that_is_down_does_not_watch() -> None:
    made = _look(_in("ramp", 50), 1, READ)
    for after_s in (5, 30, 60):
        made = _look(made.record, after_s, Batch())
        assert made.action == Stay("50 % watched for 0 of 5 s")
    assert isinstance(_look(made.record, 61, READ).action, Shift)


def test_what_was_torn_proves_nothing_and_the_watch_begins_anew() -> None:
    few, many = Arm(3, 0, draws=3), Arm(200, 0, draws=200)
    made = _look(_in("ramp", 50), 1, READ)
    made = _look(made.record, 5, replace(READ, candidate=few, stable=few))
    before = made.record
    torn = replace(READ, stable=many, torn=True)
    made = _look(before, 6, torn)
    assert made.action == Stay("50 % watched for 0 of 5 s")
    assert made.record.evidence.requests == before.evidence.requests == 3
    assert made.verdict.split < 1, "nobody is blamed for the split"
    assert (made.record.evidence_at, made.record.arrived) == (before.evidence_at, 206)
    made = _look(made.record, 10, READ)
    assert made.action == Stay("50 % watched for 0 of 5 s")
    assert isinstance(_look(made.record, 15, READ).action, Shift)
    assert events._batch(events._plain(torn)).torn


def test_one_that_never_answers_ends_in_time() -> None:
    policy = POLICY.model_copy(update={"stale_after_s": 1e6})
    late = BEGUN + policy.deadlines.step_s + policy.soak_s + 1
    seen = Seen(late, ready=True, routed={"m-v2": 50, "m-v1": 50})
    action = step(_in("ramp", 50), Batch(), seen, Judge(policy)).action
    assert isinstance(action, Shift)
    assert action.phase == "rolling_back"
    assert "50 % watched for 0 of 5 s after" in action.reason


def test_the_old_version_stays_warm_from_when_the_new_one_has_everything() -> None:
    made = _look(_in("soak", 100), 20, Batch(), routed=50)
    assert isinstance(made.action, Stay)
    made = _look(made.record, 21, Batch())
    assert made.action == Stay("100 % for 0 of 5 s, the stable version warm")
    assert made.record.settled_at == BEGUN + 21
    made = _look(made.record, 26, Batch())
    assert isinstance(made.action, Shift)
    assert made.action.phase == "promoted"


def test_a_version_that_does_not_serve_is_not_promoted() -> None:
    record = replace(_in("soak", 100), settled_at=BEGUN + 1)
    routed = {"m-v2": 100, "m-v1": 0}
    down = Seen(BEGUN + 60, ready=False, why="pod m-v2-x: it was taken away", routed=routed)
    made = step(record, Batch(), down, JUDGE)
    assert made.action == Stay("all users' version is not ready: pod m-v2-x: it was taken away")
    late = replace(down, now=BEGUN + POLICY.deadlines.step_s + POLICY.soak_s + 1)
    action = step(record, Batch(), late, JUDGE).action
    assert isinstance(action, Shift)
    assert action.phase == "rolling_back"


def test_a_gateway_that_never_follows_is_the_reason_for_the_silence() -> None:
    late = BEGUN + POLICY.stale_after_s + 1
    seen = Seen(late, ready=True, routed={"m-v2": 25, "m-v1": 75})
    action = step(_in("ramp", 50), Batch(), seen, JUDGE).action
    assert isinstance(action, Hold)
    assert action.reason.endswith("s: 50 % are not routed: {'m-v2': 25, 'm-v1': 75}")


def test_after_a_hold_it_is_watched_again() -> None:
    record = replace(_in("ramp", 50), settled_at=BEGUN + 1, read_at=BEGUN + 2, held="edited")
    made = _look(record, 30, Batch())
    assert isinstance(made.action, Resume)
    assert made.record.settled_at == 0.0


@pytest.mark.parametrize(("phase", "weight"), [("ramp", 50), ("soak", 100)])
def test_a_rollout_that_began_before_this_was_kept_is_replayed_as_it_was_decided(
    phase: Phase, weight: int
) -> None:
    old = Record.from_json(replace(_in(phase, weight), settled_at=NOT_KEPT).to_json())
    made = _look(old, 6, READ)
    assert isinstance(made.action, Shift)
    assert (made.record.settled_at, made.record.read_at) == (NOT_KEPT, 0.0)
