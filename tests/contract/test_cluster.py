"""What every `Cluster` promises: on this laptop, in files, in memory, over a fake API server.

tests/cluster/test_kube_adapter.py runs the same on a real one, so the objects are such as a real
API server takes; `_route` names what it would add by itself.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from penstock.core.errors import Conflict
from serving.cluster import Cluster, Kind, Object
from serving.gitops.folder import FolderCluster
from serving.local.objects import SqliteCluster
from tests.fakes.apiserver import api_server
from tests.fakes.cluster import MemoryCluster


@pytest.fixture(params=["sqlite", "folder", "memory", "api server"])
def cluster(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Cluster]:
    if request.param == "memory":
        yield MemoryCluster()
    elif request.param == "sqlite":
        yield SqliteCluster(tmp_path / "cluster.db")
    elif request.param == "folder":
        yield FolderCluster(tmp_path / "manifests")
    else:
        with api_server(tmp_path) as server, server.cluster() as kubernetes:
            yield kubernetes


def _route(name: str = "llama", host: str = "one.example", **metadata: Any) -> Object:
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": name, **metadata},
        "spec": _spec(host),
    }


def _spec(host: str) -> Object:
    backend = {"group": "", "kind": "Service", "name": "v1", "port": 80, "weight": 100}
    everything = {"path": {"type": "PathPrefix", "value": "/"}}
    return {"hostnames": [host], "rules": [{"backendRefs": [backend], "matches": [everything]}]}


def _status(reason: str) -> Object:
    accepted = {
        "type": "Accepted",
        "status": "True",
        "reason": reason,
        "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }
    gateway = {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "contract"}
    told = {"controllerName": "example.com/contract", "parentRef": gateway}
    return {"parents": [{**told, "conditions": [accepted]}]}


LEASE: Object = {
    "apiVersion": "coordination.k8s.io/v1",
    "kind": "Lease",
    "metadata": {"name": "mine"},
    "spec": {"holderIdentity": "a", "renewTime": "2026-01-01T00:00:00.123456Z"},
}
CONFIG_MAP: Object = {
    "apiVersion": "v1",
    "kind": "ConfigMap",
    "metadata": {"name": "settings"},
    "data": {"key": "value"},
}


def test_what_was_created_is_read_back(cluster: Cluster) -> None:
    made = cluster.create(_route())
    assert cluster.get("HTTPRoute", "llama") == made
    assert cluster.list("HTTPRoute") == [made]
    assert made["spec"] == _spec("one.example")
    assert made["metadata"]["generation"] == 1
    assert made["metadata"]["uid"]
    assert cluster.get("HTTPRoute", "absent") is None
    assert cluster.get("Lease", "llama") is None


def test_a_name_is_taken_once(cluster: Cluster) -> None:
    made = cluster.create(_route())
    with pytest.raises(Conflict, match=r"HTTPRoute .*llama exists already"):
        cluster.create(_route(host="two.example"))
    assert cluster.get("HTTPRoute", "llama") == made


def test_list_is_by_name(cluster: Cluster) -> None:
    for name in ("b", "a", "c"):
        cluster.create(_route(name))
    cluster.delete("HTTPRoute", "c")
    assert [o["metadata"]["name"] for o in cluster.list("HTTPRoute")] == ["a", "b"]
    assert cluster.list("Lease") == []


def test_list_may_want_labels(cluster: Cluster) -> None:
    for name, labels in (("a", {"of": "m", "kept": "x"}), ("b", {"of": "m"}), ("c", {})):
        cluster.create(_route(name, labels=labels))
    for wanted, names in (({"of": "m"}, ["a", "b"]), ({"of": "m", "kept": "x"}, ["a"])):
        assert [o["metadata"]["name"] for o in cluster.list("HTTPRoute", labels=wanted)] == names


def test_replace_wants_the_version_that_was_read(cluster: Cluster) -> None:
    read = cluster.create(_route())
    written = cluster.replace({**read, "spec": _spec("two.example")})
    assert written["metadata"]["resourceVersion"] != read["metadata"]["resourceVersion"]
    assert written["metadata"]["uid"] == read["metadata"]["uid"]
    assert written["metadata"]["generation"] == 2
    with pytest.raises(Conflict, match=f"read at.*{read['metadata']['resourceVersion']}"):
        cluster.replace({**read, "spec": _spec("three.example")})
    assert cluster.get("HTTPRoute", "llama") == written


def test_annotations_are_written_with_the_spec_and_are_no_new_generation(cluster: Cluster) -> None:
    read = cluster.create(_route(labels={"a": "b"}, annotations={"keep": "1", "drop": "2"}))
    metadata = {**read["metadata"], "annotations": {"keep": "1", "new": "3"}}
    written = cluster.replace({**read, "metadata": metadata})
    assert written["metadata"]["annotations"] == {"keep": "1", "new": "3"}
    assert written["metadata"]["labels"] == {"a": "b"}
    assert written["metadata"]["generation"] == 1
    with pytest.raises(Conflict):
        cluster.replace(read)


@pytest.mark.parametrize(
    ("obj", "change"),
    [
        pytest.param(LEASE, {"spec": {**LEASE["spec"], "holderIdentity": "b"}}, id="Lease"),
        pytest.param(CONFIG_MAP, {"data": {"key": "other"}}, id="ConfigMap"),
        pytest.param(_route(), {"spec": _spec("two.example")}, id="HTTPRoute"),
    ],
)
def test_every_kind_is_compared_and_swapped(cluster: Cluster, obj: Object, change: Object) -> None:
    kind: Kind = obj["kind"]
    name = obj["metadata"]["name"]
    read = cluster.create(obj)
    with pytest.raises(Conflict):
        cluster.replace({**obj, **change})  # was never read
    written = cluster.replace({**read, **change})
    assert {key: written[key] for key in change} == change
    with pytest.raises(Conflict):
        cluster.replace({**read, **change})
    assert cluster.list(kind) == [written]
    cluster.delete(kind, name)
    with pytest.raises(Conflict, match="gone"):
        cluster.replace(written)
    assert cluster.get(kind, name) is None


def test_replace_of_what_is_gone_conflicts(cluster: Cluster) -> None:
    read = cluster.create(_route())
    cluster.delete("HTTPRoute", "llama")
    cluster.delete("HTTPRoute", "llama")
    with pytest.raises(Conflict, match="gone"):
        cluster.replace(read)
    again = cluster.create(_route())
    with pytest.raises(Conflict):
        cluster.replace({**read, "spec": _spec("two.example")})
    assert cluster.get("HTTPRoute", "llama") == again


def test_status_and_spec_are_written_apart(cluster: Cluster) -> None:
    read = cluster.create({**_route(), "status": _status("Ignored")})
    assert not read.get("status", {}).get("parents")
    told = cluster.replace_status(
        {**read, "spec": _spec("nine.example"), "status": _status("Accepted")}
    )
    assert (told["spec"], told["status"]) == (_spec("one.example"), _status("Accepted"))
    assert told["metadata"]["generation"] == 1
    again = cluster.replace({**told, "spec": _spec("two.example"), "status": _status("Other")})
    assert (again["spec"], again["status"]) == (_spec("two.example"), _status("Accepted"))
    with pytest.raises(Conflict):
        cluster.replace_status({**told, "status": _status("Late")})


def test_a_dry_run_checks_and_stores_nothing(cluster: Cluster) -> None:
    would = cluster.create(_route(), dry_run=True)
    assert would["spec"] == _spec("one.example")
    assert cluster.get("HTTPRoute", "llama") is None
    made = cluster.create(_route())
    with pytest.raises(Conflict, match="exists"):
        cluster.create(_route(), dry_run=True)
    would = cluster.replace({**made, "spec": _spec("two.example")}, dry_run=True)
    assert would["spec"] == _spec("two.example")
    assert cluster.get("HTTPRoute", "llama") == made
    written = cluster.replace({**made, "spec": _spec("two.example")})
    with pytest.raises(Conflict):
        cluster.replace(made, dry_run=True)
    assert cluster.get("HTTPRoute", "llama") == written


def test_delete_may_want_the_version_that_was_read(cluster: Cluster) -> None:
    read = cluster.create(_route())
    written = cluster.replace({**read, "spec": _spec("two.example")})
    with pytest.raises(Conflict):
        cluster.delete("HTTPRoute", "llama", read=read)
    assert cluster.get("HTTPRoute", "llama") == written
    cluster.delete("HTTPRoute", "llama", read=written)
    assert cluster.get("HTTPRoute", "llama") is None
    cluster.delete("HTTPRoute", "llama", read=written)
    cluster.create(_route())
    with pytest.raises(Conflict):
        cluster.delete("HTTPRoute", "llama", read=written)


def test_of_many_writers_exactly_one_wins(cluster: Cluster) -> None:
    read, start, won = cluster.create(_route()), threading.Barrier(8), []

    def write(number: int) -> None:
        start.wait()
        try:
            cluster.replace({**read, "spec": _spec(f"w{number}.example")})
        except Conflict:
            return
        won.append(f"w{number}.example")

    _together([threading.Thread(target=write, args=(n,)) for n in range(8)])
    current = cluster.get("HTTPRoute", "llama")
    assert current is not None
    assert current["spec"]["hostnames"] == won


def test_of_many_creators_exactly_one_wins(cluster: Cluster) -> None:
    start, won = threading.Barrier(8), []

    def create(number: int) -> None:
        mine = {**LEASE, "spec": {**LEASE["spec"], "holderIdentity": f"owner-{number}"}}
        start.wait()
        try:
            cluster.create(mine)
        except Conflict:
            return
        won.append(f"owner-{number}")

    _together([threading.Thread(target=create, args=(n,)) for n in range(8)])
    assert [obj["spec"]["holderIdentity"] for obj in cluster.list("Lease")] == won


def test_no_increment_is_lost(cluster: Cluster) -> None:
    cluster.create(CONFIG_MAP | {"data": {"count": "0"}})

    def count() -> None:
        for _ in range(5):
            while not _incremented(cluster):
                pass

    _together([threading.Thread(target=count) for _ in range(4)])
    current = cluster.get("ConfigMap", "settings")
    assert current is not None
    assert current["data"] == {"count": "20"}


def test_watch_yields_what_is_and_what_changes(cluster: Cluster) -> None:
    cluster.create(_route("old"))
    cluster.create(_route("gone"))
    cluster.delete("HTTPRoute", "gone")
    seen = cluster.watch("HTTPRoute", timeout_s=30)
    assert next(seen)["metadata"]["name"] == "old"
    made = cluster.create(_route("new"))
    assert next(seen) == made
    written = cluster.replace({**made, "spec": _spec("two.example")})
    assert next(seen) == written
    told = cluster.replace_status({**written, "status": _status("Accepted")})
    assert next(seen)["status"] == told["status"]
    cluster.delete("HTTPRoute", "new")
    ended = next(seen)
    assert ended["metadata"]["name"] == "new"
    assert "deletionTimestamp" in ended["metadata"]
    seen.close()  # type: ignore[attr-defined]  # all are generators


def test_watch_yields_only_its_kind(cluster: Cluster) -> None:
    cluster.create(_route("b"))
    cluster.create(LEASE)
    cluster.create(_route("a"))
    found = list(cluster.watch("HTTPRoute", timeout_s=0))
    assert {obj["metadata"]["name"] for obj in found} == {"a", "b"}
    assert {obj["kind"] for obj in found} == {"HTTPRoute"}


def test_watch_ends(cluster: Cluster) -> None:
    cluster.create(_route())
    assert len(list(cluster.watch("HTTPRoute", timeout_s=0))) == 1
    assert len(list(cluster.watch("HTTPRoute", timeout_s=0.3))) == 1


def _incremented(cluster: Cluster) -> bool:
    read = cluster.get("ConfigMap", "settings")
    assert read is not None
    try:
        cluster.replace({**read, "data": {"count": str(int(read["data"]["count"]) + 1)}})
    except Conflict:
        return False
    return True


def _together(threads: list[threading.Thread]) -> None:
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
