"""What lies in Git: the same bytes for the same objects, and nothing that changes by itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from penstock.core.errors import ConfigurationError, Conflict
from penstock.core.spec import Rollout
from serving import controller as acting
from serving.cluster import Object
from serving.deploy import bring_back, propose
from serving.gitops import manifest
from serving.gitops.folder import FolderCluster
from serving.gitops.steps import first
from serving.kserve.traffic import RouteTraffic
from serving.rollout.record import first_record
from tests.unit.serving.kserve.objects import FACTS, release, spec

TRAFFIC = RouteTraffic(FACTS)


def files(folder: Path) -> dict[str, str]:
    """Return every file's text by its path in the folder."""
    every = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_text() for path in every}


def _begin(folder: Path) -> None:
    """Write a first version and a candidate, as two steps do."""
    cluster = FolderCluster(folder, "models")
    first(cluster, spec(), release(1), TRAFFIC)
    policy = Rollout()
    record = first_record("chat-v2", "chat-v1", policy, 1000.0)
    log = acting.FileLog(folder / "rollouts")
    acting.begin(cluster, log, "chat", record, policy, traffic=TRAFFIC)
    propose(cluster, spec(), release(2), TRAFFIC)


def test_a_route_is_these_bytes(tmp_path: Path) -> None:
    first(FolderCluster(tmp_path, "models"), spec(), release(1), TRAFFIC)
    assert (
        files(tmp_path)["httproute-chat.yaml"]
        == """\
# Written by Penstock; docs/gitops.md
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata:
  labels:
    penstock.dev/name: chat
  name: chat
  namespace: models
spec:
  hostnames:
  - chat-models.example.com
  - chat.models.example.com
  parentRefs:
  - group: gateway.networking.k8s.io
    kind: Gateway
    name: kserve-ingress-gateway
    namespace: kserve
  rules:
  - backendRefs:
    - group: ''
      kind: Service
      name: chat-v1-predictor
      port: 80
      weight: 100
    matches:
    - path:
        type: PathPrefix
        value: /
    timeouts:
      backendRequest: 0s
      request: 0s
  - backendRefs:
    - group: ''
      kind: Service
      name: chat-v1-predictor
      port: 80
      weight: 1
    matches:
    - headers:
      - name: X-Penstock-Service
        type: Exact
        value: chat-v1
      path:
        type: PathPrefix
        value: /
    timeouts:
      backendRequest: 0s
      request: 0s
"""
    )


def test_the_same_steps_are_the_same_bytes_and_repeating_one_changes_none(tmp_path: Path) -> None:
    for folder in (tmp_path / "one", tmp_path / "other"):
        _begin(folder)
    there = files(tmp_path / "one")
    assert there == files(tmp_path / "other")
    first(FolderCluster(tmp_path / "one", "models"), spec(), release(1), TRAFFIC)
    propose(FolderCluster(tmp_path / "one", "models"), spec(), release(2), TRAFFIC)
    assert files(tmp_path / "one") == there


def test_manifests_hold_nothing_that_changes_by_itself_and_the_record_lies_beside(
    tmp_path: Path,
) -> None:
    _begin(tmp_path)
    there = files(tmp_path)
    listed = yaml.safe_load(there["kustomization.yaml"])["resources"]
    assert listed == [
        "httproute-chat.yaml",
        "inferenceservice-chat-v1.yaml",
        "inferenceservice-chat-v2.yaml",
    ]
    for name in listed:
        obj = yaml.safe_load(there[name])
        assert set(obj) == {"apiVersion", "kind", "metadata", "spec"}
        assert set(obj["metadata"]) <= {"name", "namespace", "labels", "annotations"}
        assert not [key for key in obj["metadata"].get("annotations", {}) if "rollout" in key]
    assert acting.RECORD in json.loads(there["rollouts/chat.json"])
    again = FolderCluster(tmp_path).get("HTTPRoute", "chat")
    assert again is not None
    record = acting.record_of(again)
    assert record is not None
    assert (record.candidate, acting.policy_of(again)) == ("chat-v2", Rollout())


def test_what_git_brings_back_is_another_version_of_the_object(tmp_path: Path) -> None:
    cluster = FolderCluster(tmp_path, "models")
    first(cluster, spec(), release(1), TRAFFIC)
    before = files(tmp_path)
    read = cluster.get("HTTPRoute", "chat")
    assert read is not None
    moved = cluster.replace(TRAFFIC.weighted(read, {"chat-v1": 0, "chat-v2": 100}))
    (tmp_path / "httproute-chat.yaml").write_text(before["httproute-chat.yaml"])  # git revert
    found = cluster.get("HTTPRoute", "chat")
    assert found is not None
    assert TRAFFIC.weights_of(found) == {"chat-v1": 100}
    assert found["metadata"]["uid"] == moved["metadata"]["uid"]
    with pytest.raises(Conflict):
        cluster.replace(moved)
    (tmp_path / "httproute-chat.yaml").unlink()
    assert cluster.get("HTTPRoute", "chat") is None


def test_a_removed_object_leaves_no_file(tmp_path: Path) -> None:
    _begin(tmp_path)
    cluster = FolderCluster(tmp_path)
    cluster.delete("InferenceService", "chat-v2")
    assert "rollouts/chat.json" in files(tmp_path)
    cluster.delete("HTTPRoute", "chat")
    assert set(files(tmp_path)) == {
        "inferenceservice-chat-v1.yaml",
        "kustomization.yaml",
        "rollouts/chat.jsonl",
    }


def test_a_version_with_replicas_has_a_budget_that_goes_with_it(tmp_path: Path) -> None:
    two = spec().model_copy(update={"replicas": 2})
    for version in (1, 2):
        propose(FolderCluster(tmp_path, "models"), two, release(version), TRAFFIC)
    written = yaml.safe_load(files(tmp_path)["poddisruptionbudget-chat-v1.yaml"])
    assert "ownerReferences" not in written["metadata"]
    assert written["spec"]["selector"]["matchLabels"].items() <= (
        FolderCluster(tmp_path).list("InferenceService")[0]["metadata"]["labels"].items()
    )
    before = files(tmp_path)
    propose(FolderCluster(tmp_path), two, release(1), TRAFFIC)
    assert files(tmp_path) == before
    FolderCluster(tmp_path).delete("InferenceService", "chat-v1")
    assert set(files(tmp_path)) == {
        "inferenceservice-chat-v2.yaml",
        "kustomization.yaml",
        "poddisruptionbudget-chat-v2.yaml",
    }
    cluster = FolderCluster(tmp_path, "models")
    (left,) = cluster.list("InferenceService")
    kept, before = json.loads(acting.snapshot(left)), files(tmp_path)
    cluster.delete("InferenceService", "chat-v2")
    bring_back(cluster, TRAFFIC, kept)
    assert files(tmp_path) == before


def test_a_folder_of_others_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / manifest.KUSTOMIZATION).write_text("resources: [mine.yaml]\n")
    with pytest.raises(ConfigurationError, match=r"kustomization\.yaml is not Penstock's") as found:
        FolderCluster(tmp_path)
    assert "folder of its own" in found.value.hint


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [", "ParserError"),
        ("- no object\n", "TypeError"),
        ("kind: HTTPRoute\nmetadata: {name: other}\n", "belongs into httproute-other.yaml"),
    ],
)
def test_a_broken_file_is_named(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "httproute-chat.yaml").write_text(text)
    with pytest.raises(ConfigurationError, match=said) as problem:
        FolderCluster(tmp_path).list("HTTPRoute")
    assert "httproute-chat.yaml" in str(problem.value)


def test_what_is_read_is_what_was_stated() -> None:
    obj: Object = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "c", "uid": "1", "labels": {"a": "b"}, "annotations": {"note": "x"}},
        "data": {"number": "010", "lines": "one\ntwo\n", "yes": "yes"},
        "status": {"seen": True},
    }
    read = manifest.from_text(manifest.to_text(obj), "configmap-c.yaml")
    assert read == manifest.stated(obj)
    assert set(read["metadata"]) == {"name", "labels", "annotations"}
