"""A rollout with real processes: gateway, supervisor, engines that answer at once, and users."""

from __future__ import annotations

import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from penstock.cli.users import Users
from penstock.core.identity import Digest
from penstock.core.settings import Settings
from penstock.core.spec import Margins, ModelSpec, Rollout
from serving import controller as acting
from serving.controller import Controller, FileLog, record_of
from serving.deploy import Site, deploy, propose
from serving.doors import GatewayDoors
from serving.local import lifecycle
from serving.manifests import Release
from serving.rollout import events
from serving.rollout.decide import Stay
from serving.rollout.record import Record, first_record
from serving.sources.live import LiveCounters
from serving.sources.replay import Load, Prompt
from serving.sources.world import ObservedWorld, Place
from serving.traffic import LocalTraffic

pytestmark = pytest.mark.integration

ROOT = Digest.of(b"")
POLICY = Rollout(
    steps=[50],
    proof=[1.0],
    metrics={"error_rate": Margins(kind="errors", tolerate=0.02, reject=0.2)},
    soak_s=0.5,
    replay_rps=100.0,
)
PROMPTS = [Prompt(({"role": "user", "content": f"prompt {n}"},)) for n in range(2000)]


class Stage:
    """A model `m` that is served, with users, and a second version beside it."""

    def __init__(self, home: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as unused:
            port = int(unused.getsockname()[1])
        self.settings = Settings(home=home, gateway_port=port)
        self.log = FileLog(self.settings.cluster / "rollouts")
        self.cluster = lifecycle.cluster(self.settings)

    def up(self) -> None:
        env = dict(os.environ)  # noqa: TID251 - the edge of the test
        command = [sys.executable, "-m", "tests.fakes.supervise", str(self.settings.cluster)]
        lifecycle.up(self.settings, env, command)
        spec = _spec()
        release = Release(1, "file:///fast-one", ROOT)
        deploy(Site(self.cluster, self.routed), spec, release)

    def routed(self) -> dict[str, int]:
        return lifecycle.observed(self.settings, "m")

    def begin(self, *arguments: str, policy: Rollout = POLICY) -> Record:
        """Make version 2 a candidate."""
        spec = _spec(runtime_args=list(arguments))
        service = propose(self.cluster, spec, Release(2, "file:///fast-two", ROOT))
        now = time.time()
        first = first_record(service, "m-v1", policy, now)
        return acting.begin(self.cluster, self.log, "m", first, policy)

    def users(self) -> Users:
        asked = [[{"role": "user", "content": f"question {n}"}] for n in range(3000)]
        return Users(lifecycle.url(self.settings), "m", asked, rps=60.0, seed=1)

    def drive(self, *, seconds: float = 60.0) -> Record:
        """Look until it is over."""
        place = Place(
            self.cluster,
            LocalTraffic(),
            "m",
            GatewayDoors(lifecycle.url(self.settings)),
            self.routed,
            lambda new, old: LiveCounters(
                lifecycle.url(self.settings), "m", candidate=new, stable=old
            ),
        )
        world = ObservedWorld(place, POLICY, PROMPTS, Load(max_new_tokens=2), time.time)
        controller = Controller(self.cluster, self.log, world, "test")
        never, deadline = threading.Event(), time.monotonic() + seconds
        try:
            while time.monotonic() < deadline:
                made = controller.look("m")
                if made is not None and made.record.over and isinstance(made.action, Stay):
                    return made.record
                never.wait(0.1)
        finally:
            world.close()
        raise AssertionError(f"not over after {seconds:g} s")


def _spec(**more: object) -> ModelSpec:
    return ModelSpec.model_validate({"name": "m", "source": "hf://a/b", **more})


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
