"""What every `Cluster` promises."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from penstock.core.errors import Conflict
from serving.cluster import Cluster, Object
from serving.local.objects import SqliteCluster
from tests.fakes.cluster import MemoryCluster


@pytest.fixture(params=["sqlite", "memory"])
def cluster(request: pytest.FixtureRequest, tmp_path: Path) -> Cluster:
    if request.param == "memory":
        return MemoryCluster()
    return SqliteCluster(tmp_path / "cluster.db")


def _service(name: str = "llama", **spec: Any) -> Object:
    return {"kind": "InferenceService", "metadata": {"name": name}, "spec": {"size": 1, **spec}}


def test_what_was_created_is_read_back(cluster: Cluster) -> None:
    made = cluster.create(_service())
    assert cluster.get("InferenceService", "llama") == made
    assert cluster.get("InferenceService", "absent") is None
    assert cluster.get("HTTPRoute", "llama") is None
    assert made["metadata"]["generation"] == 1


def test_a_name_is_taken_once(cluster: Cluster) -> None:
    cluster.create(_service())
    with pytest.raises(Conflict, match="exists"):
        cluster.create(_service())


def test_list_is_by_name(cluster: Cluster) -> None:
    for name in ("b", "a", "c"):
        cluster.create(_service(name))
    cluster.delete("InferenceService", "c")
    assert [o["metadata"]["name"] for o in cluster.list("InferenceService")] == ["a", "b"]


def test_replace_wants_the_version_that_was_read(cluster: Cluster) -> None:
    read = cluster.create(_service())
    written = cluster.replace({**read, "spec": {"size": 2}})
    assert written["metadata"]["resourceVersion"] != read["metadata"]["resourceVersion"]
    assert written["metadata"]["generation"] == 2
    with pytest.raises(Conflict, match="is at version"):
        cluster.replace({**read, "spec": {"size": 3}})
    assert cluster.get("InferenceService", "llama") == written


def test_replace_of_what_is_gone_conflicts(cluster: Cluster) -> None:
    read = cluster.create(_service())
    cluster.delete("InferenceService", "llama")
    cluster.delete("InferenceService", "llama")
    with pytest.raises(Conflict, match="gone"):
        cluster.replace(read)


def test_status_and_spec_are_written_apart(cluster: Cluster) -> None:
    read = cluster.create({**_service(), "status": {"ignored": True}})
    assert "status" not in read
    told = cluster.replace_status({**read, "spec": {"size": 9}, "status": {"ready": True}})
    assert (told["spec"], told["status"]) == ({"size": 1}, {"ready": True})
    assert told["metadata"]["generation"] == 1
    again = cluster.replace({**told, "spec": {"size": 2}, "status": {}})
    assert (again["spec"], again["status"]) == ({"size": 2}, {"ready": True})


def test_of_many_writers_exactly_one_wins(cluster: Cluster) -> None:
    read, start, won = cluster.create(_service()), threading.Barrier(8), []

    def write(number: int) -> None:
        start.wait()
        try:
            cluster.replace({**read, "spec": {"writer": number}})
        except Conflict:
            return
        won.append(number)

    threads = [threading.Thread(target=write, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    current = cluster.get("InferenceService", "llama")
    assert current is not None
    assert [current["spec"]["writer"]] == won


def test_watch_yields_what_is_and_what_changes(cluster: Cluster) -> None:
    cluster.create(_service("old"))
    cluster.create(_service("gone"))
    cluster.delete("InferenceService", "gone")
    seen = cluster.watch("InferenceService", timeout_s=5)
    assert next(seen)["metadata"]["name"] == "old"
    cluster.create(_service("new"))
    assert next(seen)["metadata"]["name"] == "new"
    cluster.delete("InferenceService", "new")
    assert "deletionTimestamp" in next(seen)["metadata"]


def test_watch_ends(cluster: Cluster) -> None:
    cluster.create(_service())
    assert len(list(cluster.watch("InferenceService", timeout_s=0))) == 1
