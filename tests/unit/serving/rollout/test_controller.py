"""A rollout from its beginning to its end, and through every kill on the way."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from penstock.core.errors import ConfigurationError, Conflict, DigestMismatch
from serving import controller as acting
from serving import lease
from serving.cluster import Cluster
from serving.controller import Controller, FileLog
from serving.rollout import events
from serving.rollout.record import Record, digest_of, first_record
from serving.traffic import LocalTraffic
from tests.fakes.world import CANDIDATE, NAME, STABLE
from tests.unit.serving.rollout.stage import BAD_IN_SHADOW, BAD_LIVE, GOOD, POLICY, Stage


def test_a_good_version_is_promoted_and_the_old_one_removed(tmp_path: Path) -> None:
    stage = Stage(tmp_path, GOOD)
    stage.run()
    assert stage.record.phase == "promoted"
    assert stage.phases() == ["deploying", "warmup", "shadow", "ramp", "soak", "promoted"]
    assert stage.weights == {CANDIDATE: 100}
    assert stage.cluster.get("InferenceService", STABLE) is not None
    stage.controller.look(NAME)
    assert stage.cluster.get("InferenceService", STABLE) is None


def test_a_fault_that_shadow_sees_reaches_no_user(tmp_path: Path) -> None:
    stage = Stage(tmp_path, BAD_IN_SHADOW)
    stage.run()
    assert (stage.record.phase, stage.record.evidence.requests) == ("rolled_back", 0)
    assert "error_rate is worse in shadow" in stage.record.reason
    stage.controller.look(NAME)
    assert stage.cluster.get("InferenceService", CANDIDATE) is None
    assert stage.weights == {STABLE: 100}


def test_a_fault_that_only_live_traffic_shows_is_caught_on_the_ramp(tmp_path: Path) -> None:
    stage = Stage(tmp_path, BAD_LIVE)
    stage.run()
    assert stage.phases()[-3:] == ["ramp", "rolling_back", "rolled_back"]
    assert "error_rate is worse live" in stage.record.reason


def test_every_state_has_a_deadline(tmp_path: Path) -> None:
    stage = Stage(tmp_path / "a", GOOD)
    stage.world.ready = False
    stage.controller.look(NAME)
    stage.controller.look(NAME)
    stage.world.now += POLICY.ready_within_s + 1
    stage.run(5)
    assert "not ready after 181 s: loading" in stage.record.reason

    stage = Stage(tmp_path / "b", GOOD)
    stage.run(until=lambda r: r.phase == "shadow")
    stage.world.silent = True
    stage.world.now += POLICY.stale_after_s + 1
    stage.run(until=lambda r: r.held == "stale")
    assert stage.weights == {CANDIDATE: 0, STABLE: 100}
    stage.world.silent = False
    stage.run(3, until=lambda r: not r.held)
    stage.world.silent = True
    stage.world.now += POLICY.stale_after_s + 1
    stage.run(until=lambda r: r.held == "stale")
    stage.world.now += POLICY.deadlines.held_s + 1
    stage.run(5)
    assert stage.record.phase == "rolled_back"
    assert stage.undecided()


def test_what_evidence_or_a_person_ends_is_decided(tmp_path: Path) -> None:
    stage = Stage(tmp_path / "a", BAD_LIVE)
    stage.run()
    assert not stage.undecided()
    stage = Stage(tmp_path / "b", GOOD)
    stage.run(until=lambda r: r.phase == "shadow")
    stage.world.silent = True
    stage.world.now += POLICY.stale_after_s + 1
    stage.run(until=lambda r: r.held == "stale")
    acting.command(stage.cluster, stage.log, NAME, "rollback")
    stage.run(5)
    assert stage.record.reason == "a person asked for it"
    assert not stage.undecided()


def _edit(stage: Stage, weights: dict[str, int]) -> None:
    obj = stage.cluster.get("HTTPRoute", NAME)
    assert obj is not None
    stage.cluster.replace(LocalTraffic().weighted(obj, weights))


def test_weights_that_a_person_sets_are_left_alone_until_told_otherwise(tmp_path: Path) -> None:
    stage, mine = Stage(tmp_path, GOOD), {CANDIDATE: 70, STABLE: 30}
    stage.run(until=lambda r: r.phase == "ramp")
    before = stage.weights
    _edit(stage, mine)
    stage.run(2, until=lambda r: r.held == "edited")
    for _ in range(5):
        stage.controller.look(NAME)
    assert (stage.weights, stage.record.phase) == (mine, "ramp")
    assert "somebody else changed the weights to m-v1 30 %, m-v2 70 %" in stage.record.reason
    seen = stage.record.evidence.requests
    acting.command(stage.cluster, stage.log, NAME, "resume")
    stage.run(2, until=lambda r: not r.held)
    assert (stage.weights, stage.record.evidence.requests) == (before, seen)
    stage.run()
    assert stage.record.phase == "promoted"
    events.verify(stage.certificate())


def test_neither_a_new_owner_nor_a_command_moves_weights_that_a_person_set(tmp_path: Path) -> None:
    stage, mine = Stage(tmp_path, GOOD), {CANDIDATE: 70, STABLE: 30}
    stage.run(until=lambda r: r.phase == "ramp")
    _edit(stage, mine)
    acting.command(stage.cluster, stage.log, NAME, "pause")
    assert stage.weights == mine
    stage.world.now += lease.DURATION_S + 1
    stage.controller = stage.owned_by("two")
    stage.run(3, until=lambda r: r.held == "paused")
    assert (stage.record.owner, stage.weights) == ("two", mine)
    acting.command(stage.cluster, stage.log, NAME, "rollback")
    stage.run()
    assert (stage.record.phase, stage.weights) == ("rolled_back", {STABLE: 100})
    events.verify(stage.certificate())


def test_a_version_that_a_person_changes_holds_the_rollout_whoever_looks_after_it(
    tmp_path: Path,
) -> None:
    stage = Stage(tmp_path, GOOD)
    stage.run(until=lambda r: r.phase == "ramp")
    version = stage.cluster.get("InferenceService", CANDIDATE)
    assert version is not None
    stage.cluster.replace({**version, "spec": {"by": "hand"}})
    stage.world.now += lease.DURATION_S + 1
    stage.controller = stage.owned_by("two")  # it never saw what there was before
    stage.run(3, until=lambda r: r.held == "edited")
    assert "somebody changed m-v2 (1 to 2)" in stage.record.reason
    stage.run(3, until=lambda r: r.owner == "two")
    assert stage.record.held == "edited"
    events.verify(stage.certificate())


def test_weights_that_are_put_back_end_the_hold(tmp_path: Path) -> None:
    stage = Stage(tmp_path, GOOD)
    stage.run(until=lambda r: r.phase == "shadow")
    before = stage.weights
    _edit(stage, {CANDIDATE: 1, STABLE: 99})
    stage.run(2, until=lambda r: r.held == "edited")
    _edit(stage, before)
    stage.run(2, until=lambda r: not r.held)
    assert stage.record.reason == "it is again as it was"


def test_a_hold_for_an_edit_has_its_deadline(tmp_path: Path) -> None:
    stage = Stage(tmp_path, GOOD)
    stage.run(until=lambda r: r.phase == "ramp")
    _edit(stage, {CANDIDATE: 100, STABLE: 0})
    stage.run(2, until=lambda r: r.held == "edited")
    stage.world.now += POLICY.deadlines.held_s + 1
    stage.run(5)
    assert (stage.record.phase, stage.weights) == ("rolled_back", {STABLE: 100})


def test_a_later_rollout_has_a_later_epoch(tmp_path: Path) -> None:
    stage = Stage(tmp_path, BAD_IN_SHADOW)
    stage.run()
    last = stage.record.epoch
    first = first_record("m-v3", STABLE, POLICY, stage.world.now)
    acting.begin(stage.cluster, stage.log, NAME, first, POLICY)
    assert stage.record.epoch == last + 1


@pytest.mark.parametrize("choice", ["hold", "rollback"])
def test_what_stays_inconclusive_is_never_promoted(tmp_path: Path, choice: Any) -> None:
    policy = POLICY.model_copy(update={"inconclusive": choice})
    stage = Stage(tmp_path, GOOD, policy)
    stage.world.pairs = 1
    stage.run(until=lambda r: r.phase == "shadow")
    stage.controller.look(NAME)
    stage.world.now += POLICY.deadlines.shadow_s + 1
    for _ in range(3):
        stage.controller.look(NAME)
    if choice == "hold":
        assert (stage.record.phase, stage.record.held) == ("shadow", "inconclusive")
        stage.world.now += POLICY.deadlines.held_s + 1
        stage.run(5)
    assert stage.record.phase == "rolled_back"


def test_a_rollback_works_with_every_source_down(tmp_path: Path) -> None:
    stage = Stage(tmp_path, GOOD)
    stage.run(until=lambda r: r.phase == "ramp")
    stage.world.silent = True
    acting.command(stage.cluster, stage.log, NAME, "rollback")
    stage.controller.look(NAME)
    assert stage.weights == {CANDIDATE: 0, STABLE: 100}
    stage.run(3)
    assert (stage.record.phase, stage.record.reason) == ("rolled_back", "a person asked for it")


def test_traffic_that_does_not_leave_calls_a_person(tmp_path: Path) -> None:
    stage = Stage(tmp_path, GOOD)
    stage.run(until=lambda r: r.phase == "ramp")
    acting.command(stage.cluster, stage.log, NAME, "rollback")
    stage.controller.look(NAME)
    stage.world.routes = False
    stage.world.now += 121
    stage.run(1, until=lambda r: r.phase == "rollback_blocked")
    assert stage.cluster.get("InferenceService", CANDIDATE) is not None
    stage.world.routes = True
    stage.run(2)
    assert stage.record.phase == "rolled_back"


def test_people_pause_resume_and_promote(tmp_path: Path) -> None:
    stage = Stage(tmp_path, GOOD)
    stage.run(until=lambda r: r.phase == "shadow")
    acting.command(stage.cluster, stage.log, NAME, "pause")
    for _ in range(60):
        stage.controller.look(NAME)
    assert (stage.record.phase, stage.record.held) == ("shadow", "paused")
    acting.command(stage.cluster, stage.log, NAME, "resume")
    stage.controller.look(NAME)
    assert not stage.record.held
    acting.command(stage.cluster, stage.log, NAME, "promote")
    stage.controller.look(NAME)
    assert stage.weights == {CANDIDATE: 100, STABLE: 0}
    stage.run()
    assert "a person asked for it" in stage.record.reason
    with pytest.raises(ConfigurationError, match="no rollout goes on"):
        acting.command(stage.cluster, stage.log, NAME, "pause")


def test_a_second_rollout_waits_for_the_first(tmp_path: Path) -> None:
    stage = Stage(tmp_path, GOOD)
    other = replace(stage.record, candidate="m-v3", chain="", seq=0)
    with pytest.raises(ConfigurationError, match="a rollout of m-v2 goes on"):
        acting.begin(stage.cluster, stage.log, NAME, other, POLICY)
    again = acting.begin(stage.cluster, stage.log, NAME, stage.record, POLICY)
    assert again.to_json() == stage.record.to_json()


def test_the_certificate_replays_and_notices_every_change(tmp_path: Path) -> None:
    stage = Stage(tmp_path, BAD_LIVE)
    stage.run()
    text = stage.certificate()
    assert events.verify(text)[-1].record.to_json() == stage.record.to_json()
    body = json.loads(text)
    looks = [i for i, e in enumerate(body["events"]) if e["kind"] == "look"]
    for change in (
        ("events", looks[3], None),
        ("events", looks[5], {"seen": {**body["events"][looks[5]]["seen"], "now": 5.0}}),
        ("events", looks[-1], {"action": {"do": "stay", "reason": "because"}}),
        ("policy", "missed", 0.2),
        ("last", "phase", "promoted"),
    ):
        changed = json.loads(text)
        _change(changed, *change)
        with pytest.raises(DigestMismatch):
            events.verify(json.dumps(changed))
    with pytest.raises(ConfigurationError, match="not a certificate"):
        events.verify("{}")


def test_a_rollout_that_an_earlier_penstock_began_goes_on(tmp_path: Path) -> None:
    stage = Stage(tmp_path, GOOD)
    obj = stage.cluster.get("HTTPRoute", NAME)
    assert obj is not None
    policy = json.loads(acting.policy_text(obj))
    assert policy.pop("sticky") is True  # as if this field had come after it
    text = json.dumps(policy)
    record = replace(stage.record, policy=digest_of(text), chain="", seq=0)
    event = events.started(record)
    log = type(stage.log)(tmp_path / "earlier")
    log.append(NAME, events.line("", event))
    marks = {acting.POLICY: text, acting.RECORD: record.linked(event).to_json()}
    stage.cluster.replace(acting.annotated(obj, marks))
    stage.log = log
    stage.controller = stage.owned_by("one")
    stage.run()
    assert stage.record.phase == "promoted"
    assert events.verify(events.certificate(text, stage.record, log.lines(NAME)))


def _change(body: dict[str, Any], part: str, key: Any, value: Any) -> None:
    if value is None:
        del body[part][key]
    elif part == "events":
        body[part][key] |= value
    else:
        body[part][key] = value


def test_a_log_that_was_cut_is_noticed(tmp_path: Path) -> None:
    stage = Stage(tmp_path, BAD_IN_SHADOW)
    stage.run()
    lines = list(stage.log.lines(NAME))
    with pytest.raises(DigestMismatch, match="does not lead to the record"):
        events.certificate(POLICY.model_dump_json(), stage.record, lines[:2] + lines[3:])


class Killed(BaseException):
    """The process is gone: nothing below catches this."""


class Deadly:
    """A cluster and a log in whose every call the process may be killed, before or after it."""

    def __init__(self, cluster: Cluster, log: FileLog, kill_at: int) -> None:
        self._cluster, self._log = cluster, log
        self.left = kill_at

    def _survives(self) -> None:
        self.left -= 1
        if self.left == 0:
            raise Killed

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._log if name in ("append", "lines") else self._cluster, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            self._survives()
            result = real(*args, **kwargs)
            self._survives()
            return result

        return call


def _killed_at(folder: Path, wrong: tuple[float, float], points: Iterable[int]) -> Stage:
    """Run to the end, killed at these calls, each time followed by a new process."""
    stage = Stage(folder, wrong)
    for owner, point in enumerate(points):
        deadly: Any = Deadly(stage.cluster, stage.log, point)
        process = Controller(deadly, deadly, stage.world, f"owner-{owner}")
        try:
            while not stage.record.over:
                process.look(NAME)
                stage.world.now += 1.0
        except Killed:
            stage.world.now += lease.DURATION_S
    stage.controller = stage.owned_by("last")
    stage.run(until=lambda r: r.over)
    return stage


@pytest.mark.parametrize(
    ("wrong", "points"),
    [
        (BAD_IN_SHADOW, range(1, 90)),
        (GOOD, range(7, 400, 97)),
        pytest.param(GOOD, range(1, 400), marks=pytest.mark.soak),
        pytest.param(BAD_LIVE, range(1, 400), marks=pytest.mark.soak),
    ],
)
def test_a_kill_at_any_call_changes_nothing(
    tmp_path: Path, wrong: tuple[float, float], points: Iterable[int]
) -> None:
    whole = Stage(tmp_path / "whole", wrong)
    whole.run()
    for point in points:
        stage = _killed_at(tmp_path / str(point), wrong, [point])
        assert _same(stage.record, whole.record), point
        assert events.verify(stage.certificate())[-1].record.phase == whole.record.phase


def test_twenty_kills_in_a_row_change_nothing(tmp_path: Path) -> None:
    whole = Stage(tmp_path / "whole", BAD_LIVE)
    whole.run()
    rng = random.Random(7)
    for number in range(10):
        points = [rng.randint(1, 60) for _ in range(20)]
        assert _same(_killed_at(tmp_path / str(number), BAD_LIVE, points).record, whole.record)


def _same(one: Record, other: Record) -> bool:
    """Whether the decision and every bit of the evidence are the same."""
    return (one.phase, one.reason, one.cursors) == (other.phase, other.reason, other.cursors) and (
        one.evidence.wealth.tolist(),
        one.evidence.pairs,
        one.evidence.requests,
    ) == (other.evidence.wealth.tolist(), other.evidence.pairs, other.evidence.requests)


def test_two_owners_never_write_over_each_other(tmp_path: Path) -> None:
    """Interleaved call by call: every write of an older epoch is refused."""
    rng = random.Random(3)
    for number in range(3):
        stage = Stage(tmp_path / str(number), BAD_LIVE)
        owners = [stage.owned_by(name) for name in ("a", "b", "c")]
        for _ in range(400):
            rng.choice(owners).look(NAME)
            stage.world.now += rng.choice([0.0, 1.0, lease.DURATION_S + 1])
            if stage.record.over:
                break
        replayed = events.verify(stage.certificate())
        epochs = [r.record.epoch for r in replayed]
        assert epochs == sorted(epochs)
        assert {r.record.epoch: r.record.owner for r in replayed}.keys() == set(epochs)
        assert stage.record.phase == "rolled_back"


def test_a_stale_owner_is_refused(tmp_path: Path) -> None:
    stage = Stage(tmp_path, GOOD)
    obj = stage.cluster.get("HTTPRoute", NAME)
    assert obj is not None
    stage.controller.look(NAME)
    with pytest.raises(Conflict):
        stage.cluster.replace(obj)
