"""A rollout whose every step is a commit: others apply it, and `git revert` takes it back."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest

from penstock.cli.rollout_render import Decision, decide
from penstock.core.identity import Digest
from penstock.core.spec import ModelSpec, Rollout
from serving import controller as acting
from serving.cluster import Kind
from serving.controller import FileLog
from serving.deploy import propose
from serving.gitops.drift import of_objects
from serving.gitops.folder import FolderCluster
from serving.gitops.manifest import stated
from serving.gitops.steps import first
from serving.manifests import Release, weights_of
from serving.rollout.decide import Seen
from serving.rollout.record import Record, first_record
from serving.targets.rendered import RenderedTarget, as_written
from tests.fakes.cluster import MemoryCluster
from tests.fakes.world import StreamWorld

POLICY = Rollout(soak_s=0.0, steps=[10, 50], proof=[1.0])
SPEC = ModelSpec.model_validate({"name": "m", "source": "hf://a/b"})
KINDS: tuple[Kind, ...] = ("InferenceService", "HTTPRoute")


class World(StreamWorld):
    """Evidence from a cluster that others bring to where the folder is; every look is a second."""

    def __init__(self, place: Place, **options: Any) -> None:
        super().__init__(place.applied, pairs=600, requests=4000, **options)
        self.place = place

    def seen(self, record: Record) -> Seen:
        self.now += 1.0
        self.ready = self.cluster.get("InferenceService", record.candidate) is not None
        return as_written(super().seen(record), record, self.place.cluster, acting.LOCAL)

    def close(self) -> None:
        pass


@dataclass
class Place:
    """A folder under Git, and the cluster that is to follow it."""

    folder: Path
    wrong: tuple[float, float] = (0.0, 0.0)
    look_s: float = 0.0
    began: bool = True
    options: str = " --namespace n"
    hint: str = "penstock drift"
    traffic: Any = acting.LOCAL

    def __post_init__(self) -> None:
        self.applied = MemoryCluster()
        self.log = FileLog(self.folder / "rollouts")
        self.git("init", "--quiet")
        self._world = World(self, wrong=self.wrong)

    @property
    def cluster(self) -> FolderCluster:
        """The folder, as another machine's checkout would show it."""
        return FolderCluster(self.folder, "n")

    def world(self, _name: str, _policy: Rollout) -> World:
        return self._world

    def observed(self, _name: str) -> dict[str, int]:
        return weights_of(self.applied.list("HTTPRoute")[0])

    def git(self, *words: str) -> str:
        who = ["-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "commit.gpgsign=false"]
        command = ["git", "-C", str(self.folder), *who, *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def commit(self, message: str) -> None:
        self.git("add", "--all")
        self.git("commit", "--quiet", "-m", message)

    def apply(self) -> None:
        """Make the cluster what the folder is, as Argo CD and Flux do with pruning."""
        for kind in KINDS:
            wanted = {obj["metadata"]["name"]: obj for obj in self.cluster.list(kind)}
            for name, obj in wanted.items():
                there = self.applied.get(kind, name)
                if there is None:
                    self.applied.create(obj)
                else:
                    metadata = {**there["metadata"], **stated(obj)["metadata"]}
                    self.applied.replace({**there, "metadata": metadata, "spec": obj["spec"]})
            for obj in self.applied.list(kind):
                if obj["metadata"]["name"] not in wanted:
                    self.applied.delete(kind, obj["metadata"]["name"])

    def begin(self) -> None:
        first(self.cluster, SPEC, Release(1, "file:///x", Digest.of(b"x")), self.traffic)
        self.commit("first")
        self.apply()
        record = first_record("m-v2", "m-v1", POLICY, self._world.now)
        acting.begin(self.cluster, self.log, "m", record, POLICY)
        propose(self.cluster, SPEC, Release(2, "file:///y", Digest.of(b"y")))
        self.commit("candidate")
        self.apply()

    def step(self, timeout_s: float = 60.0) -> Decision:
        return decide(cast(RenderedTarget, self), "m", timeout_s)

    def weights(self) -> dict[str, int]:
        return weights_of(self.cluster.list("HTTPRoute")[0])

    def to_the_end(self) -> list[dict[str, int]]:
        """Take every step, commit and apply it; return the weights after each."""
        weights = []
        while not (made := self.step()).over:
            assert made.decided
            self.commit(f"{made.phase} {made.weight}")
            self.apply()
            weights.append(self.weights())
        return weights

    def drift(self) -> list[str]:
        git = [obj for kind in KINDS for obj in self.cluster.list(kind)]
        return [str(f) for f in of_objects(git, [o for k in KINDS for o in self.applied.list(k)])]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_every_step_is_one_commit_and_the_cluster_follows(place: Place) -> None:
    place.begin()
    assert place.to_the_end() == [
        {"m-v1": 100, "m-v2": 0},
        {"m-v1": 90, "m-v2": 10},
        {"m-v1": 50, "m-v2": 50},
        {"m-v1": 0, "m-v2": 100},
        {"m-v2": 100},
        {"m-v2": 100},
    ]
    assert [o["metadata"]["name"] for o in place.applied.list("InferenceService")] == ["m-v2"]
    assert place.drift() == []
    assert place.git("status", "--porcelain") == "", "when it is over, nothing is written any more"


def test_it_is_over_when_what_lost_is_removed(place: Place) -> None:
    place.begin()
    while (made := place.step()).phase != "promoted":
        place.commit(made.phase)
        place.apply()
    assert not made.over
    place.commit("promoted")
    place.apply()
    assert place.step().decided, "what lost is removed"
    assert place.step().over


def test_a_rollback_that_is_not_applied_is_waited_for(tmp_path: Path) -> None:
    place = Place(tmp_path, wrong=(0.0, 0.5))
    place.begin()
    while (made := place.step()).phase != "rolling_back":
        place.commit(made.phase)
        place.apply()
    assert (made.decided, place.weights()) == (True, {"m-v1": 100, "m-v2": 0})
    waiting = place.step(timeout_s=0.0)
    assert (waiting.phase, waiting.decided, waiting.over) == ("rolling_back", False, False)
    place.apply()
    assert place.to_the_end()[-1] == {"m-v1": 100}


def test_a_step_that_is_not_applied_is_not_taken_again(place: Place) -> None:
    place.begin()
    assert place.step().weight == 0
    place.commit("warmup")
    waiting = place.step(timeout_s=0.0)
    assert not waiting.decided
    assert "yaml" not in place.git("status", "--porcelain")
    assert place.drift() == [
        "HTTPRoute/m spec.rules[0].backendRefs: Git 2 entries, cluster 1 entries"
    ]


def test_reverting_a_rollouts_commits_brings_the_stable_version_back(place: Place) -> None:
    place.begin()
    start = place.git("rev-parse", "HEAD~1").strip()
    first_bytes = place.git("show", f"{start}:httproute-m.yaml")
    place.to_the_end()
    assert place.weights() == {"m-v2": 100}
    place.git("revert", "--no-commit", f"{start}..HEAD")
    place.commit("back")
    assert (place.folder / "httproute-m.yaml").read_text() == first_bytes
    assert place.weights() == {"m-v1": 100}
    assert place.cluster.get("InferenceService", "m-v1") is not None
    place.apply()
    assert place.drift() == []
    assert [o["metadata"]["name"] for o in place.applied.list("InferenceService")] == ["m-v1"]


def test_reverting_a_persons_promotion_restores_the_weights_before(place: Place) -> None:
    place.begin()
    while (made := place.step()).phase != "ramp":
        place.commit(made.phase)
        place.apply()
    place.commit("ramp")
    place.apply()
    acting.command(place.cluster, place.log, "m", "promote")
    assert place.step().weight == 100
    place.commit("promoted by a person")
    assert place.weights() == {"m-v1": 0, "m-v2": 100}
    place.git("revert", "--no-edit", "HEAD")
    assert place.weights() == {"m-v1": 90, "m-v2": 10}
    route = place.cluster.get("HTTPRoute", "m")
    assert route is not None
    record = acting.record_of(route)
    assert record is not None
    assert (record.phase, record.weight) == ("ramp", 10), "the record goes back with the weights"


def test_a_bad_candidate_is_rolled_back_by_commits(tmp_path: Path) -> None:
    place = Place(tmp_path, wrong=(0.5, 0.5))
    place.begin()
    *_, last = place.to_the_end()
    assert last == {"m-v1": 100}
    assert [o["metadata"]["name"] for o in place.applied.list("InferenceService")] == ["m-v1"]
    assert place.step().phase == "rolled_back"
