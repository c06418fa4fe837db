"""A rollout that is disturbed decides as it would have, or is held and says why.

A rollout meets five kills, one after the other. `PENSTOCK_CHAOS=5` does so five times, with the
kills at other moments each time, and disturbs five rollouts in a row for each disturbance alone.
`PENSTOCK_CHAOS_OUT=FOLDER` writes the figures down.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import pytest

from penstock.cli.users import Users
from penstock.core.errors import ConfigurationError
from penstock.core.spec import Deadlines
from serving import controller as acting
from serving import lease
from serving.manifests import NAME as LABEL
from serving.rollout import events
from serving.rollout.record import Record
from tests.cluster import chaos
from tests.cluster.chaos import DISTURBANCES, MOMENTS, Scene
from tests.cluster.chaos_results import Result, note
from tests.cluster.places import chosen
from tests.cluster.stage import NAME, POLICY, Stage
from tests.cluster.waiting import pause, until

pytestmark = [pytest.mark.cluster, pytest.mark.alone, pytest.mark.enable_socket]

COUNT = int(os.environ.get("PENSTOCK_CHAOS", "0"))
BAD = "--fault=live-errors=0.5"
CANDIDATE, STABLE = "m-v2", "m-v1"
PATIENT = POLICY.model_copy(
    update={
        "replay_rps": 15.0,
        "stale_after_s": 240.0,
        "deadlines": Deadlines(warmup_s=240.0, shadow_s=600.0, step_s=600.0, held_s=120.0),
        "ready_timeout_s": 240.0,
    }
)
"""What a busy node needs longer for, while it starts something else again, is no evidence."""

RPS = 10.0
KILLS = [
    "KServe killed",
    "API server killed",
    "kubelet killed",
    "Envoy Gateway killed",
    "controller killed",
]
"""None of them may fail a user, whenever it happens; of the kubelet's see `chaos.UNREACHED`."""

STORMS = [("route", "good"), *([("route", "bad"), ("llmisvc", "good")] if COUNT else [])]
STORIES = {"good": ((), "promoted"), "bad": ((BAD,), "rolled_back")}


def moments_of(story: str) -> list[str]:
    """Return when a rollout of a candidate can be disturbed; a bad one does not get further."""
    return list(MOMENTS)[:3] if story == "bad" else list(MOMENTS)


def _cases() -> Iterator[Any]:
    """Yield mechanism, story and disturbance."""
    for name in DISTURBANCES if COUNT else ():
        for mode, story in (("route", "good"), ("route", "bad"), ("llmisvc", "good")):
            if mode == "route" or name == "controller killed":
                yield pytest.param(mode, story, name, id=f"{story}-{mode}-{name}")


@pytest.fixture
def stages(cluster: Any, namespace: str, tmp_path: Path) -> Iterator[Callable[[str], Stage]]:
    if not chosen().state.exists():
        pytest.skip("only components of a cluster by python -m tests.cluster can be killed")

    def make(mode: str) -> Stage:
        made = Stage(namespace, tmp_path, mode=mode, policy=PATIENT)
        made.prepare()
        made.deploy(1)
        return made

    yield make
    chaos.calm()


@pytest.fixture
def stage(stages: Callable[[str], Stage]) -> Stage:
    return stages("route")


@pytest.mark.parametrize(("mode", "story", "name"), list(_cases()))
def test_disturbed_rollouts_decide_as_undisturbed_ones(
    stages: Callable[[str], Stage], mode: str, story: str, name: str
) -> None:
    stage, disturbance = stages(mode), DISTURBANCES[name]
    arguments, expected = STORIES[story]
    harmed: list[Result] = []
    with stage.users(RPS) as users, chaos.driven(stage) as scene:
        # from shadow on: a run that is cut short has then seen the most telling moments
        for version, moment in enumerate(islice(cycle(moments_of(story)), 1, COUNT + 1), start=2):
            stage.begin(version, *arguments)
            stage.until(MOMENTS[moment])
            since = Since(users)
            disturbance.act(scene)
            record = stage.until(lambda r: r.over)
            result = _noted(name, moment, story, scene, since, record)
            assert record.phase == expected, (record.reason, stage.logs())
            chaos.reachable(stage)  # Envoy, each time it is killed, is started again later
            _nothing_is_lost(stage, users, record)
            if result.harm and mode == "route" and moment in disturbance.unharmed:
                harmed.append(result)
    assert harmed == []


@pytest.mark.parametrize("number", range(COUNT or 1))
@pytest.mark.parametrize(("mode", "story"), STORMS)
def test_a_rollout_survives_a_kill_of_everything_one_after_the_other(
    stages: Callable[[str], Stage], mode: str, story: str, number: int
) -> None:
    stage, (arguments, expected) = stages(mode), STORIES[story]
    turned = KILLS[number % len(KILLS) :] + KILLS[: number % len(KILLS)]
    storm = dict(zip(moments_of(story), turned, strict=False))
    with stage.users(RPS) as users, chaos.driven(stage) as scene:
        since = Since(users)
        stage.begin(2, *arguments)
        for moment, name in storm.items():
            stage.until(MOMENTS[moment])
            DISTURBANCES[name].act(scene)
        record = stage.until(lambda r: r.over)
        told = "; ".join(f"{moment}: {name}" for moment, name in storm.items())
        result = _noted("one after the other", told, story, scene, since, record)
        assert record.phase == expected, (record.reason, stage.logs())
        _nothing_is_lost(stage, users, record)
    if mode == "route":
        assert [each for each in result.failures if chaos.UNREACHED not in each] == []


@pytest.mark.parametrize("number", range(COUNT))
def test_weights_that_a_person_sets_stay_and_hold_the_rollout(stage: Stage, number: int) -> None:
    target, by_hand = stage.target, {CANDIDATE: 10, STABLE: 90}
    with stage.users(RPS) as users, chaos.driven(stage) as scene:
        stage.begin(2)
        stage.until(lambda r: r.weight == 25)
        since = Since(users)
        chaos.edited(stage, by_hand)
        record = stage.until(lambda r: r.held == "edited")
        assert "somebody else changed the weights to m-v1 90 %, m-v2 10 %" in record.reason
        until("it routes as the person said", lambda: target.observed(NAME) == by_hand)
        pause(5)
        assert target.observed(NAME) == by_hand
        chaos.edited(stage, acting.weights(record))  # as it was
        stage.until(lambda r: r.weight == 50 and not r.held)
        chaos.edited(stage, by_hand)
        stage.until(lambda r: r.held == "edited")
        acting.command(target.cluster, target.log, NAME, "rollback", target.traffic)
        record = stage.until(lambda r: r.over)
        result = _noted("weights edited", "25 %", "good", scene, since, record)
        assert record.phase == "rolled_back"
        _nothing_is_lost(stage, users, record)
    assert result.harm == 0, result.failures


@pytest.mark.parametrize("number", range(COUNT))
def test_a_version_that_a_person_changes_holds_the_rollout_whoever_looks_after_it(
    stage: Stage, number: int
) -> None:
    with stage.users(RPS) as users, chaos.driven(stage) as scene:
        stage.begin(2)
        stage.until(lambda r: r.weight == 25)
        since = Since(users)
        chaos.changed(stage, CANDIDATE)
        record = stage.until(lambda r: r.held == "edited" or r.over)
        assert record.held == "edited", record.reason
        assert "somebody changed m-v2" in record.reason
        scene.controller.killed()  # who comes next has not seen it as it was
        owner = record.owner
        stage.until(lambda r: r.owner != owner)
        pause(5)
        assert stage.record.held == "edited", stage.record.reason
        target = stage.target
        acting.command(target.cluster, target.log, NAME, "rollback", target.traffic)
        record = stage.until(lambda r: r.over)
        result = _noted("candidate edited", "25 %", "good", scene, since, record)
        assert record.phase == "rolled_back"
        _nothing_is_lost(stage, users, record)
    assert result.harm == 0, result.failures


@pytest.mark.parametrize("number", range(COUNT))
def test_a_second_run_is_refused_and_a_second_controller_waits(stage: Stage, number: int) -> None:
    second = stage.controller()
    try:
        with stage.users(RPS) as users, chaos.driven(stage) as scene:
            since = Since(users)
            stage.begin(2)
            stage.until(MOMENTS["shadow"])
            with pytest.raises(ConfigurationError, match="a rollout of m-v2 goes on") as refused:
                stage.begin(3)
            assert f"penstock rollout rollback {NAME}" in refused.value.hint
            record = stage.until(lambda r: r.over)
            result = _noted("second run and controller", "shadow", "good", scene, since, record)
            assert record.phase == "promoted", (record.reason, stage.logs())
            _nothing_is_lost(stage, users, record)
            owners = {each.record.owner for each in _replayed(stage) if each.record.owner}
            assert len(owners) == 1, owners
    finally:
        second.terminate()
        second.wait(60)
    assert result.harm == 0, result.failures


class Since:
    """What users ask and lose from now on."""

    def __init__(self, users: Users) -> None:
        self._users, self._asked, self._failed = users, users.asked, len(_harm(users))

    @property
    def asked(self) -> int:
        """Requests."""
        return self._users.asked - self._asked

    @property
    def harm(self) -> list[str]:
        """What each that failed got, those that failed on purpose aside."""
        return _harm(self._users)[self._failed :]


def _nothing_is_lost(stage: Stage, users: Users, record: Record) -> None:
    """The winner serves everybody, what lost is gone, and the certificate holds."""
    winner, loser = record.stable, record.candidate
    if record.phase == "promoted":
        winner, loser = loser, winner
    assert stage.gone(loser, seconds=chaos.DEAF_S), stage.logs()
    target = stage.target
    for kind in (target.traffic.served, "Deployment", "Service"):
        until(
            f"nothing but {winner} is left of {kind}",
            lambda kind=kind: all(_of(each, winner) for each in _named(stage, kind)),  # type: ignore[misc]
            chaos.DEAF_S,
        )
    assert _named(stage, target.traffic.served) == [winner]
    carrier = target.cluster.get(target.traffic.carrier, NAME)
    assert carrier is not None
    assert target.traffic.weights_of(carrier) == {winner: 100}
    everything = {winner: 100}
    until("the winner has all", lambda: target.observed(NAME) == everything, chaos.DEAF_S)
    until(
        "nobody owns it any more",
        lambda: target.cluster.get("Lease", lease.name_of(NAME)) is None,
    )
    failed, asked = len(_harm(users)), users.asked
    until("users go on asking", lambda: users.asked >= asked + 50)
    assert len(_harm(users)) == failed
    assert _replayed(stage)[-1].record.phase == record.phase


def _of(name: str, service: str) -> bool:
    return f"{name}-".startswith(f"{service}-")


def _named(stage: Stage, kind: Any) -> list[str]:
    found = stage.target.cluster.list(kind)
    return [
        each["metadata"]["name"]
        for each in found
        if each["metadata"].get("labels", {}).get(LABEL) == NAME
    ]


def _replayed(stage: Stage) -> list[events.Replayed]:
    text = events.certificate(PATIENT.model_dump_json(), stage.record, stage.target.log.lines(NAME))
    return events.verify(text)


def _harm(users: Users) -> list[str]:
    return [failure for failure in users.failures if "injected on purpose" not in failure]


def _noted(
    name: str, moment: str, story: str, scene: Scene, since: Since, record: Record
) -> Result:
    replayed, harm = _replayed(scene.stage), since.harm
    held = {f"{r.record.held}: {r.record.reason}" for r in replayed if r.record.held}
    result = Result(
        disturbance=name,
        moment=moment,
        mode=scene.stage.mode,
        story=story,
        decision=record.phase,
        reason=record.reason,
        held=sorted(held),
        harm=len(harm),
        failures=sorted(set(harm))[:5],
        asked=since.asked,
        seconds=round(record.entered_at - record.started_at, 1),
    )
    note(result)
    return result
