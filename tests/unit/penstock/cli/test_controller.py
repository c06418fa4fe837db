"""`penstock controller`: it takes over what nobody looks after, and only that."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from penstock.cli.app import app
from penstock.cli.rollout_keeper import Duty, Keeper
from penstock.core.errors import NotReady, RegistryUnreachable
from penstock.core.spec import Rollout
from serving import controller as acting
from serving import lease
from serving.cluster import Cluster
from serving.controller import FileLog, record_of
from serving.local.objects import SqliteCluster
from serving.manifests import weights_of
from serving.rollout import events
from serving.rollout.decide import Seen, Stay
from serving.rollout.evidence import Batch
from serving.rollout.record import Record, first_record
from tests.fakes.cluster import MemoryCluster
from tests.fakes.world import CANDIDATE, NAME, STABLE, StreamWorld, services

POLICY = Rollout(soak_s=2.0)


class Clocked(StreamWorld):
    """A world in which a second passes with every look."""

    trouble: Exception | None = None
    slow_s = 0.0

    def seen(self, record: Record) -> Seen:
        self.now += 0.5  # a look asks twice
        if self.trouble is not None:
            raise self.trouble
        return super().seen(record)

    def evidence(self, record: Record, seen: Seen) -> Batch:
        threading.Event().wait(self.slow_s)
        return super().evidence(record, seen)


class Stage:
    """A cluster with a rollout that has begun."""

    def __init__(self, cluster: Cluster, folder: Path, began_at: float | None = None) -> None:
        self.cluster, self.log, self.said = cluster, FileLog(folder), list[str]()
        self.champions, self.registry_is_down = list[tuple[str, bool]](), 0
        services(cluster)
        self.world = Clocked(cluster, pairs=600, requests=4000)
        self.world.now = time.time() if began_at is None else began_at
        first = first_record(CANDIDATE, STABLE, POLICY, self.world.now)
        acting.begin(cluster, self.log, NAME, first, POLICY)

    @property
    def record(self) -> Record:
        obj = self.cluster.get("HTTPRoute", NAME)
        assert obj is not None
        found = record_of(obj)
        assert found is not None
        return found

    def keeper(self, owner: str = "me", **more: Any) -> Keeper:
        duty = Duty(
            self.cluster,
            self.log,
            lambda _name, _policy: nullcontext(self.world),
            owner,
            self.said.append,
            self.promote,
        )
        return Keeper(duty, threads=2, look_s=0.0, scan_s=0.02, **more)

    def promote(self, _name: str, record: Record) -> None:
        if self.registry_is_down:
            self.registry_is_down -= 1
            raise RegistryUnreachable("the tracking server does not answer")
        stable_is_there = self.cluster.get("InferenceService", STABLE) is not None
        self.champions.append((record.candidate, stable_is_there))

    def keep(self, *, once: bool = True, seconds: float = 20.0, **more: Any) -> None:
        async def keep() -> None:
            keeper = self.keeper(**more)
            asyncio.get_running_loop().call_later(seconds, keeper.stop)
            await keeper.run(once=once)

        asyncio.run(keep())


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(MemoryCluster(), tmp_path)


def test_it_finishes_what_a_dead_pipeline_left(stage: Stage) -> None:
    lease.acquire(stage.cluster, NAME, "run-dead", time.time() - lease.DURATION_S - 1)
    stage.keep()
    assert (stage.record.phase, stage.record.owner) == ("promoted", "me")
    assert stage.cluster.get("InferenceService", STABLE) is None
    assert stage.cluster.list("Lease") == []
    text = events.certificate(POLICY.model_dump_json(), stage.record, stage.log.lines(NAME))
    assert events.verify(text)[-1].record.phase == "promoted"
    assert [line.partition(": ")[2].partition(":")[0] for line in stage.said] == [
        "looked after from warmup on, m-v2 against m-v1",
        "warmup",
        "shadow",
        "ramp 10 %",
        "ramp 25 %",
        "ramp 50 %",
        "soak 100 %",
        "promoted",
        "m-v1 is removed",
    ]


def test_it_removes_what_lost_when_its_owner_died_before(stage: Stage) -> None:
    owner = acting.Controller(stage.cluster, stage.log, stage.world, "run-dead")
    while not stage.record.over:
        owner.look(NAME)
    lease.release(stage.cluster, NAME, "run-dead")
    assert stage.cluster.get("InferenceService", STABLE) is not None
    stage.keep()
    assert stage.cluster.get("InferenceService", STABLE) is None
    stage.said.clear()
    stage.keep()
    assert stage.said == []


@pytest.mark.parametrize("died_after_the_promotion", [False, True])
def test_what_it_promotes_becomes_champion_before_the_old_version_goes(
    stage: Stage, died_after_the_promotion: bool
) -> None:
    owner = acting.Controller(stage.cluster, stage.log, stage.world, "run-dead")
    while died_after_the_promotion and not stage.record.over:
        owner.look(NAME)
    lease.release(stage.cluster, NAME, "run-dead")
    stage.registry_is_down = 1
    stage.keep(renew_s=0.01)
    assert stage.champions == [(CANDIDATE, True)]
    assert stage.cluster.get("InferenceService", STABLE) is None
    assert any("tracking server" in line for line in stage.said)
    stage.keep()
    assert len(stage.champions) == 1  # a person may have moved the alias since


def test_it_does_not_remove_a_candidate_made_after_the_end(tmp_path: Path) -> None:
    stage = Stage(SqliteCluster(tmp_path / "cluster.db"), tmp_path, began_at=time.time() - 3600)
    owner = acting.Controller(stage.cluster, stage.log, stage.world, "run-dead")
    while not stage.record.over:
        owner.look(NAME)
    stage.cluster.delete("InferenceService", STABLE)
    made = {"kind": "InferenceService", "metadata": {"name": STABLE}, "spec": {}}
    stage.cluster.create(made)
    stage.keep()
    assert stage.said == []


def test_it_leaves_what_another_looks_after(stage: Stage) -> None:
    lease.acquire(stage.cluster, NAME, "run-1", time.time() - lease.RENEW_S)
    renewed = threading.Timer(0.2, lambda: lease.acquire(stage.cluster, NAME, "run-1", time.time()))
    renewed.start()
    stage.keep()
    renewed.join()
    assert stage.said == ["m: left to run-1, which looks after it"]
    assert stage.record.owner == ""


def test_a_look_that_takes_long_keeps_its_lease(stage: Stage) -> None:
    owner = acting.Controller(stage.cluster, stage.log, stage.world, "me")
    while stage.record.phase != "shadow":
        owner.look(NAME)
    lease.release(stage.cluster, NAME, "me")
    lease.acquire(stage.cluster, NAME, "me", time.time() - lease.RENEW_S)
    stage.world.now, stage.world.slow_s = time.time() - lease.RENEW_S, 0.5
    renewed = []
    for at_s in (0.15, 0.4):
        timer = threading.Timer(
            at_s,
            lambda: renewed.append(stage.cluster.list("Lease")[0]["spec"]["renewTime"]),
        )
        timer.start()
    stage.keep(once=False, seconds=0.1, renew_s=0.2)
    assert renewed[0] < renewed[1]


def test_it_gives_its_leases_up_when_stopped(stage: Stage) -> None:
    stage.world.silent = True
    stage.keep(once=False, seconds=0.3)
    assert (stage.record.phase, stage.record.owner) == ("shadow", "me")
    assert stage.cluster.list("Lease") == []


def test_it_goes_away_when_another_took_over(stage: Stage) -> None:
    stage.world.silent = True

    async def both() -> None:
        first = stage.keeper()
        task = asyncio.create_task(first.run(once=False))
        while stage.record.phase != "shadow":
            await asyncio.sleep(0.01)
        stage.cluster.delete("Lease", f"penstock-rollout-{NAME}")
        lease.acquire(stage.cluster, NAME, "run-2", stage.world.now + 3600)
        await asyncio.sleep(0.1)
        written = stage.record.seq
        await asyncio.sleep(0.1)
        assert stage.record.seq == written
        first.stop()
        await task

    asyncio.run(both())
    assert [obj["spec"]["holderIdentity"] for obj in stage.cluster.list("Lease")] == ["run-2"]


def test_who_waited_for_another_leaves_alone_what_that_one_has_ended(stage: Stage) -> None:
    lease.acquire(stage.cluster, NAME, "run-1", time.time())

    async def wait() -> None:
        second = stage.keeper()
        task = asyncio.create_task(second.run(once=False))
        await asyncio.sleep(0.1)
        owner = acting.Controller(stage.cluster, stage.log, stage.world, "run-1")
        while (
            not (made := owner.look(NAME))
            or not made.record.over
            or not isinstance(made.action, Stay)
        ):
            stage.world.now = time.time()
        ended = stage.record
        lease.release(stage.cluster, NAME, "run-1")
        await asyncio.sleep(0.2)
        assert (stage.record.owner, stage.record.seq) == ("run-1", ended.seq)
        second.stop()
        await task

    asyncio.run(wait())


def test_what_lost_stays_until_the_route_is_known(stage: Stage) -> None:
    owner = acting.Controller(stage.cluster, stage.log, stage.world, "run-dead")
    while not stage.record.over:
        owner.look(NAME)
    lease.release(stage.cluster, NAME, "run-dead")
    stage.world.routes = False
    stage.keep(seconds=0.2)
    assert "what lost is removed once the gateway tells" in stage.said[-1]
    assert stage.cluster.get("InferenceService", STABLE) is not None


def test_trouble_is_told_once_and_passes(stage: Stage) -> None:
    stage.world.trouble = NotReady("gateway", reason="it sleeps", waited_s=0, hint="wake it")
    stage.keep(once=False, seconds=0.2)
    assert stage.said == ["m: gateway: not ready after 0 s: it sleeps; next: wake it"]
    stage.world.trouble = None
    stage.keep()
    assert stage.record.phase == "promoted"


def test_a_bug_is_logged_and_spares_the_others(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    stage.world.trouble = ZeroDivisionError("a bug")
    stage.keep(once=False, seconds=0.2)
    assert "ZeroDivisionError: a bug" in caplog.text


def test_what_only_a_person_can_mend_is_left_until_it_is_written_again(stage: Stage) -> None:
    obj = stage.cluster.get("HTTPRoute", NAME)
    assert obj is not None
    obj["metadata"]["annotations"][acting.POLICY] = Rollout(soak_s=3.0).model_dump_json()
    obj = stage.cluster.replace(obj)
    stage.keep()
    assert "the policy was changed while the rollout went on" in stage.said[0]
    obj["metadata"]["annotations"] |= {acting.RECORD: "{}"}
    obj = stage.cluster.replace(obj)
    stage.keep()
    assert "not the record of a rollout" in stage.said[1]
    assert len(stage.said) == 2


@contextmanager
def gateway(cluster: SqliteCluster) -> Iterator[int]:
    """Answer /routes as the route says; yields the port."""

    class Routes(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            routes = {o["metadata"]["name"]: weights_of(o) for o in cluster.list("HTTPRoute")}
            body = json.dumps(routes).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Routes) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


@pytest.mark.integration
def test_controller_once_keeps_the_deadline_of_a_candidate_that_never_came(tmp_path: Path) -> None:
    cluster = SqliteCluster(tmp_path / "cluster" / "cluster.db")
    stage = Stage(cluster, tmp_path / "cluster" / "rollouts", began_at=time.time() - 600)
    lease.acquire(cluster, NAME, "run-dead", time.time() - 60)
    with gateway(cluster) as port:
        env = {"PENSTOCK_HOME": str(tmp_path), "PENSTOCK_GATEWAY_PORT": str(port)}
        result = CliRunner(env=env).invoke(app, ["controller", "--once"])
    assert result.exit_code == 0, (result.output, result.exception)
    assert "m: rolled back: the candidate is not ready" in result.output
    assert "m: m-v2 is removed" in result.output
    assert stage.record.phase == "rolled_back"
    assert stage.record.owner.startswith("controller-")
    assert cluster.get("InferenceService", CANDIDATE) is None
    assert cluster.list("Lease") == []


@pytest.mark.integration
def test_sigterm_ends_the_process_and_frees_the_rollout(tmp_path: Path) -> None:
    cluster = SqliteCluster(tmp_path / "cluster" / "cluster.db")
    stage = Stage(cluster, tmp_path / "cluster" / "rollouts")
    env = {**os.environ, "PENSTOCK_HOME": str(tmp_path), "PENSTOCK_GATEWAY_PORT": "1"}  # noqa: TID251 - the edge of the test
    process = subprocess.Popen(
        [sys.executable, "-m", "penstock.cli", "controller"],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        _until(lambda: stage.record.owner.startswith("controller-"))
        assert len(cluster.list("Lease")) == 1
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=20)
    finally:
        process.kill()
    assert process.returncode == 0, out
    assert "m: looked after from deploying on, m-v2 against m-v1" in out
    assert cluster.list("Lease") == []


def _until(done: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline, never = time.monotonic() + seconds, threading.Event()
    while not done():
        assert time.monotonic() < deadline
        never.wait(0.05)
