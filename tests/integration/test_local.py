"""The local cluster with real processes, over an engine that answers at once."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from penstock.core.errors import NotReady, PortOccupied
from penstock.core.identity import Digest
from penstock.core.settings import Settings
from penstock.core.spec import ModelSpec
from serving.cluster import Object
from serving.deploy import Deployed, Site, deploy
from serving.headers import SERVICE
from serving.local import lifecycle
from serving.local.processes import Replicas
from serving.local.requestlog import RequestLog
from serving.manifests import Release, inference_service, route

pytestmark = pytest.mark.integration

ROOT = Digest.of(b"")


def _until(done: Callable[[], object], seconds: float = 20) -> None:
    never, deadline = threading.Event(), time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, "it did not happen in time"
        never.wait(0.05)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        return int(unused.getsockname()[1])


class Local:
    """A local cluster of one test."""

    def __init__(self, home: Path) -> None:
        self.settings = Settings(home=home, gateway_port=_free_port())
        self.env = dict(os.environ)  # noqa: TID251 - the edge of the test

    @property
    def command(self) -> list[str]:
        return [sys.executable, "-m", "tests.fakes.supervise", str(self.settings.cluster)]

    def up(self) -> list[str]:
        return lifecycle.up(self.settings, self.env, self.command)

    def deploy(self, version: int, folder: str, **spec: object) -> Deployed:
        model = _spec(**spec)
        uri = f"file:///{folder}"
        objects = lifecycle.cluster(self.settings)
        site = Site(objects, lambda: lifecycle.observed(self.settings, "m"))
        return deploy(site, model, Release(version, uri, ROOT))

    def ask(self, **body: object) -> httpx.Response:
        url = f"{lifecycle.url(self.settings)}/v1/chat/completions"
        return httpx.post(url, json={"model": "m", **body}, timeout=10, trust_env=False)

    def replicas(self) -> Replicas:
        return Replicas(self.settings.cluster / "replicas.db")


def _spec(**spec: object) -> ModelSpec:
    return ModelSpec.model_validate({"name": "m", "source": "hf://a/b", **spec})


@pytest.fixture
def local(tmp_path: Path) -> Iterator[Local]:
    cluster = Local(tmp_path)
    yield cluster
    lifecycle.down(cluster.settings)


def test_serves_replaces_and_stops(local: Local) -> None:
    assert local.up() == ["gateway", "supervisor"]
    assert local.up() == []
    assert local.ask().status_code == 404
    first = local.deploy(1, "one")
    assert (first.service, first.replaced) == ("m-v1", ())
    assert local.ask().status_code == 200
    assert local.deploy(1, "one").replaced == ()
    assert local.deploy(2, "two").replaced == ("m-v1",)
    assert local.ask().headers["X-Penstock-Version"] == "m-v2"
    _until(lambda: len([p for p in local.replicas().all() if p.alive]) == 1)
    lifecycle.down(local.settings)
    assert not lifecycle.status(local.settings).up
    assert local.replicas().all() == []
    local.up()  # the objects were kept: the version is served again
    _until(lambda: local.ask().status_code == 200)


def test_a_killed_supervisor_interrupts_nobody(local: Local) -> None:
    local.up()
    local.deploy(1, "one")
    assert local.ask().status_code == 200
    before = local.replicas().all()
    pid = lifecycle.status(local.settings).supervisor_pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    _until(lambda: lifecycle.status(local.settings).supervisor_pid is None)
    assert local.ask().status_code == 200
    assert local.up() == ["supervisor"]
    assert local.ask().status_code == 200
    assert local.replicas().all() == before


def test_a_killed_gateway_comes_back_with_its_routes(local: Local) -> None:
    local.up()
    local.deploy(1, "one")
    assert local.ask().status_code == 200
    pid = lifecycle.status(local.settings).gateway_pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    _until(lambda: lifecycle.status(local.settings).gateway_pid is None)
    assert local.up() == ["gateway"]
    assert local.ask().status_code == 200


def test_a_killed_replica_is_replaced(local: Local) -> None:
    local.up()
    local.deploy(1, "one")
    (replica,) = local.replicas().all()
    replica.signal(signal.SIGKILL)
    _until(lambda: [p.pid for p in local.replicas().all() if p.alive] not in ([], [replica.pid]))
    _until(lambda: local.ask().status_code == 200)
    assert lifecycle.status(local.settings).services[0].restarts == 1


@pytest.mark.parametrize(
    ("folder", "reason"), [("broken", "cannot be run"), ("altered", "changed: model.safetensors")]
)
def test_what_never_becomes_ready_changes_nothing(local: Local, folder: str, reason: str) -> None:
    local.up()
    local.deploy(1, "one")
    assert local.ask().status_code == 200
    with pytest.raises(NotReady, match=reason):
        local.deploy(2, folder, rollout={"ready_timeout_s": 2.0})
    assert local.ask().headers["X-Penstock-Version"] == "m-v1"
    assert [s.service for s in lifecycle.status(local.settings).services] == ["m-v1"]


def test_an_answer_in_flight_survives_the_replacement(local: Local) -> None:
    local.up()
    local.deploy(1, "one")
    assert local.ask().status_code == 200
    answers: list[str] = []
    reader = threading.Thread(
        target=lambda: answers.append(local.ask(stream=True, max_tokens=60).text)
    )
    reader.start()
    local.deploy(2, "two")
    reader.join()
    assert answers[0].count("data: ") == 61
    assert answers[0].endswith("[DONE]\n\n")


def test_weights_split_and_requests_are_counted_and_logged(local: Local) -> None:
    local.up()
    objects = lifecycle.cluster(local.settings)
    for version in (1, 2):
        objects.create(_service(version))
    objects.create(route("m", {"m-v1": 75, "m-v2": 25}))
    _until(lambda: all(s.ready for s in lifecycle.status(local.settings).services))
    _until(lambda: local.ask().status_code == 200)
    seen = [local.ask(max_tokens=n).headers["X-Penstock-Version"] for n in range(40)]
    assert seen.count("m-v2") == 10
    metrics = httpx.get(f"{lifecycle.url(local.settings)}/metrics", trust_env=False).text
    assert 'penstock_gateway_requests_total{code="200",half="",name="m",service="m-v2"}' in metrics
    log = RequestLog(local.settings.cluster / "requests.db")
    _until(lambda: any('"max_tokens":39' in entry.body for entry in log.newest(50)))


def test_a_fault_in_the_arguments_fails_users_and_spares_replays(local: Local) -> None:
    local.up()
    objects, service = lifecycle.cluster(local.settings), _service(1)
    service["spec"]["predictor"]["model"]["args"].append("--fault=live-errors=1")
    objects.create(service)
    objects.create(route("m", {"m-v1": 100}))
    _until(lambda: all(s.ready for s in lifecycle.status(local.settings).services))
    _until(lambda: local.ask().status_code == 500)
    url = f"{lifecycle.url(local.settings)}/v1/chat/completions"
    headers = {SERVICE: "m-v1"}
    replayed = httpx.post(url, json={"model": "m"}, headers=headers, timeout=10, trust_env=False)
    assert replayed.status_code == 200
    log = Path(lifecycle.status(local.settings).services[0].log)
    assert "FAULT INJECTION is on" in log.read_text()


def test_a_taken_port_is_named_and_nothing_is_started(tmp_path: Path) -> None:
    local = Local(tmp_path)
    with (
        socket.create_server(("127.0.0.1", local.settings.gateway_port)),
        pytest.raises(PortOccupied, match=str(local.settings.gateway_port)) as refused,
    ):
        local.up()
    assert "PENSTOCK_GATEWAY_PORT" in refused.value.hint
    assert not lifecycle.status(local.settings).up


def _service(version: int) -> Object:
    return inference_service(_spec(), Release(version, "file:///one", ROOT))
