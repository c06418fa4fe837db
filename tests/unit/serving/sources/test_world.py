"""What a rollout sees, through the real gateway and the real controller."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from penstock.core.spec import Deadlines, Margins, Rollout
from serving.completer import Message
from serving.controller import Controller, FileLog, begin
from serving.doors import GatewayDoors
from serving.headers import REQUEST, VERSION
from serving.local.objects import SqliteCluster
from serving.manifests import weights_of
from serving.rollout.decide import Seen
from serving.rollout.evidence import NO_REQUESTS
from serving.rollout.record import Record, first_record
from serving.rollout.step import LIVE
from serving.sources.live import LiveCounters, Reading
from serving.sources.replay import Load, Prompt
from serving.sources.world import ObservedWorld, Place
from serving.traffic import LocalTraffic
from tests.fakes.engine import FakeEngine
from tests.fakes.gateway import cluster_of

SCORED = Margins(kind="score", tolerate=0.01, reject=0.2, prove_in=["live"])
ERRORS = Margins(kind="errors", tolerate=0.01, reject=0.2)
POLICY = Rollout(steps=[50], proof=[1], metrics={"error_rate": ERRORS}, soak_s=0.0)


class Stage:
    """A rollout on a gateway of its own."""

    def __init__(self, folder: Path, url: str, policy: Rollout) -> None:
        self.cluster, self.url, self.now = SqliteCluster(folder / "cluster.db"), url, 1000.0
        self.http = httpx.Client(base_url=url, trust_env=False)
        place = Place(
            self.cluster,
            LocalTraffic(),
            "m",
            GatewayDoors(url),
            self._routed,
            lambda new, old: LiveCounters(url, "m", candidate=new, stable=old),
        )
        prompts = [
            Prompt((Message(role="user", content=str(number)),), "right") for number in range(4)
        ]
        self.world = ObservedWorld(place, policy, prompts, Load(max_new_tokens=2), self._clock)
        log = FileLog(folder / "log")
        begin(self.cluster, log, "m", first_record("m-v2", "m-v1", policy, self.now), policy)
        self.controller = Controller(self.cluster, log, self.world, "me")

    def look(self) -> Record:
        never = threading.Event()
        for _ in range(500):  # the gateway has a process's time, not the test's
            if self._routed():
                break
            never.wait(0.02)
        self.now += 1
        made = self.controller.look("m")
        assert made is not None
        return made.record

    def until(self, phase: str, looks: int = 40) -> Record:
        for _ in range(looks):
            record = self.look()
            if phase in (record.phase, record.held):
                return record
        raise AssertionError(f"not {phase}: {record.phase} {record.held} {record.reason}")

    def ask(self, count: int) -> list[httpx.Response]:
        body = {"model": "m", "messages": [{"role": "user", "content": "?"}], "max_tokens": 1}
        return [self.http.post("/v1/chat/completions", json=body) for _ in range(count)]

    def _clock(self) -> float:
        return self.now

    def _routed(self) -> dict[str, int]:
        obj = self.cluster.get("HTTPRoute", "m")
        assert obj is not None
        found: dict[str, int] = self.http.get("/routes").json()["m"]
        return found if found == weights_of(obj) else {}


@contextmanager
def _stage(folder: Path, policy: Rollout, **engines: FakeEngine) -> Iterator[Stage]:
    served = {
        name: engines.get(name.replace("-", "_"), FakeEngine(pause_s=0.0))
        for name in ("m-v1", "m-v2")
    }
    with cluster_of(folder, served, {"m-v1": 100}) as url:
        cluster = SqliteCluster(folder / "cluster.db")
        ready = [{"type": "Ready", "status": "True"}]
        for name in served:
            obj = cluster.get("InferenceService", name)
            assert obj is not None
            cluster.replace_status({**obj, "status": {**obj["status"], "conditions": ready}})
        stage = Stage(folder, url, policy)
        with contextlib.closing(stage.world), stage.http:
            yield stage


def test_prompts_that_run_out_without_a_proof_are_the_reason(tmp_path: Path) -> None:
    quality = Margins(kind="score", tolerate=0.01, reject=0.02, prove_in=["shadow"])
    policy = POLICY.model_copy(update={"metrics": {"quality": quality}})
    with _stage(tmp_path, policy) as stage:
        record = stage.until("inconclusive")
        assert "every prompt was replayed (4 pairs)" in record.reason
        assert "quality" in record.reason
        assert stage.now < 1000 + POLICY.stale_after_s


def _in_ramp(stage: Stage) -> None:
    assert stage.until("ramp").weight == 50
    for _ in range(50):
        if stage.world.seen(stage.look()).routed == {"m-v2": 50, "m-v1": 50}:
            return
        stage.http.get("/healthz")
    raise AssertionError("50 % are not routed")


LIVE_ONLY = POLICY.model_copy(
    update={
        "metrics": {"error_rate": ERRORS.model_copy(update={"prove_in": ["live"], "reject": 0.02})}
    }
)


def test_replicas_of_the_stable_version_that_differ_hold_the_rollout(tmp_path: Path) -> None:
    """Of each version one replica fails: what a difference is worth, nobody can say."""
    broken = FakeEngine(pause_s=0.0, status=500)
    with (
        cluster_of(tmp_path / "broken", {"x-v1": broken}, {"x-v1": 100}),
        _stage(tmp_path, LIVE_ONLY) as stage,
    ):
        other = SqliteCluster(tmp_path / "broken" / "cluster.db").get("InferenceService", "x-v1")
        assert other is not None
        for service in ("m-v1", "m-v2"):
            obj = stage.cluster.get("InferenceService", service)
            assert obj is not None
            endpoints = [*obj["status"]["endpoints"], *other["status"]["endpoints"]]
            status = {**obj["status"], "endpoints": endpoints}
            stage.cluster.replace_status({**obj, "status": status})
        _in_ramp(stage)
        for _ in range(40):
            stage.ask(20)
            record = stage.look()
            if record.held or record.phase != "ramp":
                break
        assert record.held == "doubt"
        assert "replicas of the stable version differ among themselves" in record.reason


@pytest.mark.parametrize(("worth", "outcome"), [(0.9, "soak"), (0.1, "rolling_back")])
def test_scores_that_come_later_decide(tmp_path: Path, worth: float, outcome: str) -> None:
    policy = LIVE_ONLY.model_copy(
        update={"metrics": {"helpful": SCORED}, "deadlines": Deadlines(step_s=1e6)}
    )
    with _stage(tmp_path, policy) as stage:
        _in_ramp(stage)
        answers = stage.ask(2)
        stage.look()
        assert stage.look().phase == "ramp"  # answers without scores say nothing
        for _ in range(60):
            answers += stage.ask(20)
            for answer in answers[::2] + answers[1::4]:
                score = worth if answer.headers[VERSION] == "m-v2" else 0.9
                body = {"request": answer.headers[REQUEST], "metric": "helpful", "score": score}
                stage.http.post("/v1/scores", json=body).raise_for_status()
            answers = []
            record = stage.look()
            if record.phase != "ramp":
                break
        assert record.phase == outcome


class Told:
    """Counters that say what they are told to."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading

    def read(self, cursor: str | None) -> Reading:
        return self._reading

    def close(self) -> None:
        pass


NONE = (NO_REQUESTS, NO_REQUESTS)
SOME = dataclasses.replace(NO_REQUESTS, requests=7, draws=7)


@pytest.mark.parametrize(
    ("reading", "size", "kept"),
    [
        pytest.param(Reading(NO_REQUESTS, NO_REQUESTS, NONE, "second"), 0, False, id="nothing"),
        # else those that were not ready when the step began would never count
        pytest.param(
            Reading(NO_REQUESTS, NO_REQUESTS, NONE, "second", met=True), 0, True, id="met"
        ),
        pytest.param(Reading(SOME, NO_REQUESTS, NONE, "second"), 7, True, id="requests"),
        pytest.param(Reading(SOME, NO_REQUESTS, NONE, "second", torn=True), 7, True, id="torn"),
    ],
)
def test_what_is_read_is_evidence_or_at_least_where_it_goes_on(
    tmp_path: Path, reading: Reading, size: int, kept: bool
) -> None:
    cluster, routed = SqliteCluster(tmp_path / "cluster.db"), {"m-v2": 50, "m-v1": 50}
    doors = GatewayDoors("http://127.0.0.1:1")
    place = Place(
        cluster, LocalTraffic(), "m", doors, lambda: routed, lambda *_versions: Told(reading)
    )
    world = ObservedWorld(place, POLICY, [], Load(), lambda: 1000.0)
    record = dataclasses.replace(
        first_record("m-v2", "m-v1", POLICY, 990.0),
        phase="ramp",
        weight=50,
        cursors={LIVE: "first"},
    )
    batch = world.evidence(record, Seen(now=1000.0, routed=routed))
    assert (batch.size, batch.cursors) == (size, {LIVE: "second"} if kept else {})
    assert batch.torn == reading.torn
