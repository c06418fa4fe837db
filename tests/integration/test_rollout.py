"""A rollout with real processes: gateway, supervisor, engines that answer at once, and users."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from penstock.core.spec import Margins, Rollout
from serving.controller import record_of
from serving.local import lifecycle
from serving.rollout import events
from serving.rollout.record import Record
from tests.integration.rollout_stage import POLICY, Stage

pytestmark = pytest.mark.integration


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    made = Stage(tmp_path)
    made.up()
    yield made
    lifecycle.down(made.settings)


def _until(done: Callable[[], object], seconds: float = 20) -> None:
    never, deadline = threading.Event(), time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, "it did not happen in time"
        never.wait(0.05)


def test_a_good_version_takes_over_and_no_user_notices(stage: Stage) -> None:
    with stage.users().asking() as users:
        stage.begin()
        record = stage.drive()
        _until(lambda: stage.routed() == {"m-v2": 100})
    assert (record.phase, users.failed) == ("promoted", 0)
    assert users.asked > 50
    assert record.evidence.requests > 0
    assert [s.service for s in lifecycle.status(stage.settings).services] == ["m-v2"]


def test_a_version_that_fails_only_its_users_is_caught_on_the_ramp(stage: Stage) -> None:
    with stage.users().asking() as users:
        stage.begin("--fault=live-errors=0.5")
        record = stage.drive()
    assert (record.phase, stage.routed()) == ("rolled_back", {"m-v1": 100})
    assert "error_rate is worse live" in record.reason
    assert 0 < users.failed < 60
    assert [s.service for s in lifecycle.status(stage.settings).services] == ["m-v1"]
    text = events.certificate(POLICY.model_dump_json(), record, stage.log.lines("m"))
    assert events.verify(text)[-1].record.to_json() == record.to_json()


SLOW = Rollout(
    steps=[50],
    proof=[2.0],
    metrics={"error_rate": Margins(kind="errors", tolerate=0.01, reject=0.05)},
    soak_s=1.0,
    replay_rps=4.0,
)


@pytest.mark.soak
@pytest.mark.parametrize("arguments", [(), ("--fault=live-errors=0.3",)], ids=["good", "bad live"])
def test_twenty_kills_of_the_controller_change_nothing(
    stage: Stage, arguments: tuple[str, ...]
) -> None:
    """Killed with SIGKILL at random moments, each time followed by another process."""
    rng, kills = random.Random(len(arguments)), 0
    env = {
        **os.environ,  # noqa: TID251 - the edge of the test
        "PENSTOCK_HOME": str(stage.settings.home),
        "PENSTOCK_GATEWAY_PORT": str(stage.settings.gateway_port),
    }
    with stage.users().asking():
        threading.Event().wait(5)  # the controller replays what users asked before
        stage.begin(*arguments, policy=SLOW)
        while not _record(stage).over:
            process = subprocess.Popen(
                [sys.executable, "-m", "penstock.cli", "controller"], env=env
            )
            threading.Event().wait(rng.uniform(1.3, 2.6) if kills < 20 else 60)
            process.kill()
            process.wait()
            kills += 1
            _expire(stage)
    record = _record(stage)
    text = events.certificate(SLOW.model_dump_json(), record, stage.log.lines("m"))
    replayed = events.verify(text)
    cursors = [r.record.cursors or {} for r in replayed]
    places = [each["replay"] for each in cursors if "replay" in each]
    assert places == sorted(places)  # nothing behind the cursor was counted again
    assert len({r.record.epoch for r in replayed}) >= min(kills, 5)
    assert record.phase == ("rolled_back" if arguments else "promoted"), record.reason
    assert kills >= 5


def _expire(stage: Stage) -> None:
    """Let the lease of a process that was killed run out at once: nobody wants to wait for it."""
    held = stage.cluster.get("Lease", "penstock-rollout-m")
    if held is not None:
        spec = {**held["spec"], "renewTime": "2020-01-01T00:00:00.000000Z"}
        stage.cluster.replace({**held, "spec": spec})


def _record(stage: Stage) -> Record:
    obj = stage.cluster.get("HTTPRoute", "m")
    assert obj is not None
    found = record_of(obj)
    assert found is not None
    return found
