"""Going back is one commit per step, and a step waits for the cluster to be as the folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from penstock.core.errors import ConfigurationError
from penstock.core.spec import Rollout
from serving import controller as acting
from serving.deploy import propose
from serving.gitops.folder import FolderCluster
from serving.gitops.steps import Told, first, revert, take_up
from serving.kserve.traffic import RouteTraffic
from serving.rollout.record import first_record
from tests.fakes.cluster import MemoryCluster
from tests.unit.serving.gitops.test_folder import files
from tests.unit.serving.kserve.objects import FACTS, release, spec

TRAFFIC = RouteTraffic(FACTS)
NOTHING = Told({}, {})


def _promoted(folder: Path) -> FolderCluster:
    """Return a folder in which version 2 took over, and version 1 is a snapshot."""
    cluster = FolderCluster(folder, "models")
    first(cluster, spec(), release(1), TRAFFIC)
    propose(cluster, spec(), release(2), TRAFFIC)
    one, route = cluster.get("InferenceService", "chat-v1"), cluster.get("HTTPRoute", "chat")
    assert one is not None
    assert route is not None
    kept = acting.annotated(route, {acting.PREVIOUS: acting.snapshot(one)})
    cluster.replace(TRAFFIC.weighted(kept, {"chat-v2": 100}))
    cluster.delete("InferenceService", "chat-v1")
    return cluster


def _weights(cluster: FolderCluster) -> dict[str, int]:
    route = cluster.get("HTTPRoute", "chat")
    assert route is not None
    return TRAFFIC.weights_of(route)


def test_going_back_is_three_commits(tmp_path: Path) -> None:
    cluster = _promoted(tmp_path)
    first_one = files(tmp_path)
    both, ready = {"chat-v1": True, "chat-v2": True}, {"chat-v1": False, "chat-v2": True}

    def step(told: Told) -> str:
        before = files(tmp_path)
        old, done = revert(FolderCluster(tmp_path), TRAFFIC, "chat", told)
        assert old == "chat-v1"
        assert (files(tmp_path) == before) == (not done), "what is told is what was written"
        return done

    assert step(NOTHING) == "chat-v1 is served again, without traffic"
    assert _weights(cluster) == {"chat-v2": 100}
    assert step(NOTHING) == ""
    assert step(Told(ready, {"chat-v2": 100})) == ""
    assert step(Told(both, {"chat-v2": 100})) == "chat-v1 gets 100 %"
    assert _weights(cluster) == {"chat-v1": 100}
    assert step(Told(both, {"chat-v2": 100})) == "", "the gateway has not taken it over"
    assert step(Told(both, {"chat-v1": 100})) == "chat-v2 removed"
    assert step(Told(both, {"chat-v1": 100})) == ""
    assert "inferenceservice-chat-v1.yaml" in files(tmp_path)
    assert json.loads(files(tmp_path)["rollouts/chat.json"]) == json.loads(
        first_one["rollouts/chat.json"]
    )


def test_where_nothing_was_promoted_there_is_nothing_to_go_back_to(tmp_path: Path) -> None:
    cluster = FolderCluster(tmp_path, "models")
    first(cluster, spec(), release(1), TRAFFIC)
    with pytest.raises(ConfigurationError, match="nothing was promoted"):
        revert(cluster, TRAFFIC, "chat", NOTHING)
    policy = Rollout()
    record = first_record("chat-v2", "chat-v1", policy, 0.0)
    log = acting.FileLog(tmp_path / "rollouts")
    acting.begin(cluster, log, "chat", record, policy, traffic=TRAFFIC)
    with pytest.raises(ConfigurationError, match="goes on"):
        revert(cluster, TRAFFIC, "chat", NOTHING)


def _served() -> MemoryCluster:
    """Return a cluster that serves version 7 already, as others have marked it."""
    there = MemoryCluster()
    noted = {"kubectl.kubernetes.io/last-applied-configuration": "{}", "team": "a"}
    version = TRAFFIC.version(spec(), release(7))
    marked = {**version["metadata"], "annotations": noted, "finalizers": ["kserve"]}
    made = there.create({**version, "metadata": marked})
    there.replace_status({**made, "status": {"conditions": []}})
    there.create(TRAFFIC.carrying("chat", {"chat-v7": 100}))
    return there


def test_what_is_served_already_is_taken_up_so_that_a_new_version_is_a_candidate(
    tmp_path: Path,
) -> None:
    cluster, there = FolderCluster(tmp_path, "models"), _served()
    take_up(cluster, there, TRAFFIC, "chat")
    assert acting.stable_of(cluster, "chat", TRAFFIC) == "chat-v7"
    written = files(tmp_path)
    assert not {"status", "finalizers", "last-applied-configuration"} & set(
        written["inferenceservice-chat-v7.yaml"].replace("/", " ").replace(":", " ").split()
    )
    assert "team: a" in written["inferenceservice-chat-v7.yaml"]
    there.create(TRAFFIC.carrying("other", {"other-v1": 100}))
    take_up(cluster, there, TRAFFIC, "chat")
    assert files(tmp_path) == written


def test_a_rollout_whose_record_is_on_the_cluster_is_not_taken_up(tmp_path: Path) -> None:
    there, policy = _served(), Rollout()
    record = first_record("chat-v8", "chat-v7", policy, 0.0)
    log = acting.FileLog(tmp_path / "log")
    acting.begin(there, log, "chat", record, policy, traffic=TRAFFIC)
    with pytest.raises(ConfigurationError, match="its record is on the cluster"):
        take_up(FolderCluster(tmp_path / "git"), there, TRAFFIC, "chat")
