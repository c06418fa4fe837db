"""Several owners on one rollout, a network that lies, a clock that jumps: nothing is lost."""

from __future__ import annotations

import copy
import itertools
import random
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from penstock.core.errors import ConfigurationError, Conflict, ServingError
from penstock.core.spec import Rollout
from serving import controller as acting
from serving import lease
from serving.cluster import Kind, Object
from serving.controller import Controller, record_of
from serving.manifests import weights_of
from serving.rollout import events
from serving.rollout.record import Record, first_record
from serving.rollout.step import LIVE
from tests.fakes.cluster import MemoryCluster
from tests.fakes.world import CANDIDATE, NAME, STABLE, StreamWorld, services

POLICY = Rollout(soak_s=5.0, steps=[25, 50], proof=[4.0])
FAULTS = ("refused", "lost answer", "stale read")


class LyingCluster(MemoryCluster):
    """A cluster over a bad network: the next call of a kind goes wrong in one way."""

    def __init__(self) -> None:
        super().__init__()
        self.fault = ""
        self.commits: list[tuple[str, str]] = []
        """(version before, version after) of the HTTPRoute, as they were written."""

        self._before: dict[tuple[str, str], Object] = {}

    def get(self, kind: Kind, name: str) -> Object | None:
        if self.fault == "stale read" and (kind, name) in self._before:
            self.fault = ""
            return copy.deepcopy(self._before[kind, name])
        return super().get(kind, name)

    def replace(self, obj: Object, *, dry_run: bool = False) -> Object:
        fault, self.fault = self.fault, ""
        if fault == "refused":
            raise Conflict("409, and nothing was written")
        key = (obj["kind"], obj["metadata"]["name"])
        before = super().get(*key)
        written = super().replace(obj, dry_run=dry_run)
        if before is not None:
            self._before[key] = before
        if obj["kind"] == "HTTPRoute":
            versions = obj["metadata"]["resourceVersion"], written["metadata"]["resourceVersion"]
            self.commits.append(versions)
        if fault == "lost answer":
            raise ServingError("timed out; it was written all the same")
        return written


class Log:
    """Lines in memory."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def append(self, name: str, line: str) -> None:
        self._lines.append(line)

    def lines(self, name: str) -> list[str]:
        return self._lines


class Scene:
    """A rollout, and three who want to own it."""

    def __init__(self, wrong: tuple[float, float]) -> None:
        self.cluster, self.log = LyingCluster(), Log()
        services(self.cluster)
        self.world = StreamWorld(self.cluster, wrong, pairs=400, requests=800)
        first = first_record(CANDIDATE, STABLE, POLICY, self.world.now)
        acting.begin(self.cluster, self.log, NAME, first, POLICY)
        self.owners = [Controller(self.cluster, self.log, self.world, o) for o in ("a", "b", "c")]

    def look(self, owner: int) -> None:
        try:
            self.owners[owner].look(NAME)
        except ServingError:
            return  # whoever called looks again

    def ask(self, asked: Any) -> None:
        if not self.record.over:
            try:
                acting.command(self.cluster, self.log, NAME, asked)
            except (ServingError, ConfigurationError):
                return  # timed out; or an old read, from before it began: the person asks again

    @property
    def record(self) -> Record:
        obj = MemoryCluster.get(self.cluster, "HTTPRoute", NAME)
        assert obj is not None
        found = record_of(obj)
        assert found is not None
        return found

    def check(self) -> None:
        """What holds at every moment."""
        record = self.record
        obj = MemoryCluster.get(self.cluster, "HTTPRoute", NAME)
        assert obj is not None
        assert weights_of(obj) == acting.weights(record)
        cursors = record.cursors or {}
        assert record.evidence.pairs == int(cursors.get("replay", "0"))
        if record.phase == "ramp" and LIVE in cursors:
            step, _, at = cursors[LIVE].partition(":")
            assert (int(step), int(at) % 800) == (record.step, 0)
        # every write was over the version before it: no update was lost
        assert all(one[1] == other[0] for one, other in itertools.pairwise(self.cluster.commits))

    def check_history(self) -> None:
        """What holds of all that was committed."""
        text = events.certificate(POLICY.model_dump_json(), self.record, self.log.lines(NAME))
        replayed = events.verify(text)
        epochs = [each.record.epoch for each in replayed]
        assert epochs == sorted(epochs)
        owners = {(each.record.epoch, each.record.owner) for each in replayed}
        assert len(owners) == len({epoch for epoch, _ in owners})


class Rollouts(RuleBasedStateMachine):
    """Anything may happen in any order."""

    @initialize(wrong=st.sampled_from([(0.0, 0.0), (0.0, 0.1), (0.1, 0.1)]))
    def begin(self, wrong: tuple[float, float]) -> None:
        self.scene = Scene(wrong)

    @rule(owner=st.integers(0, 2), times=st.integers(1, 6))
    def look(self, owner: int, times: int) -> None:
        for _ in range(times):
            self.scene.look(owner)
            self.scene.world.now += 1

    @rule(fault=st.sampled_from(FAULTS))
    def lie(self, fault: str) -> None:
        self.scene.cluster.fault = fault

    @rule(seconds=st.sampled_from([0.5, lease.DURATION_S + 1, -30.0, 200.0]))
    def jump(self, seconds: float) -> None:
        self.scene.world.now += seconds

    @rule(asked=st.sampled_from(["pause", "resume", "rollback"]))
    def ask(self, asked: str) -> None:
        self.scene.ask(asked)

    @rule()
    def go_silent(self) -> None:
        self.scene.world.silent = not self.scene.world.silent

    @invariant()
    def holds(self) -> None:
        if hasattr(self, "scene"):
            self.scene.check()

    def teardown(self) -> None:
        if hasattr(self, "scene"):
            self.scene.check_history()


TestRollouts = Rollouts.TestCase
TestRollouts.settings = settings(
    max_examples=25, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)


@pytest.mark.parametrize(
    "runs", [30, pytest.param(10_000, marks=pytest.mark.soak)], ids=["some", "ten thousand"]
)
def test_interleavings_of_two_runs_end_as_one_run_does(runs: int) -> None:
    rng = random.Random(11)
    for _ in range(runs):
        scene = Scene((0.0, 0.1))
        for _ in range(600):
            scene.cluster.fault = rng.choice(FAULTS) if rng.random() < 0.1 else ""
            scene.look(rng.randrange(2))
            scene.world.now += rng.choice([0.0, 1.0, 1.0, lease.DURATION_S + 1])
            if scene.record.over:
                break
        scene.check()
        assert scene.record.phase == "rolled_back"
        assert "error_rate is worse live" in scene.record.reason
