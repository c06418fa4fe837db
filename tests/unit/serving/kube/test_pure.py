"""Paths, waiting, comparing and being told: what needs no server."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.patience import wait_s
from serving.cluster import Kind, Object
from serving.kube.calls import Target
from serving.kube.discovery import allocatable
from serving.kube.kinds import RESOURCES, to_install
from serving.kube.readback import holds, holds_status, includes
from serving.kube.watch import Seen

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def test_every_kind_has_a_place() -> None:
    assert set(RESOURCES) == set(get_args(Kind))
    assert len({(r.group, r.plural) for r in RESOURCES.values()}) == len(RESOURCES)
    assert all(to_install(resource) for resource in RESOURCES.values())


@pytest.mark.parametrize(
    ("target", "path", "words"),
    [
        (
            Target("HTTPRoute", "models", "llama", "status"),
            "/apis/gateway.networking.k8s.io/v1/namespaces/models/httproutes/llama/status",
            "HTTPRoute status models/llama",
        ),
        (Target("Pod", "models"), "/api/v1/namespaces/models/pods", "Pod in namespace models"),
        (Target("Node", "models", "n1"), "/api/v1/nodes/n1", "Node n1"),
        (Target("Node", ""), "/api/v1/nodes", "Node"),
        (Target("Namespace", "models", "models"), "/api/v1/namespaces/models", "Namespace models"),
        (
            Target("ConfigMap", "models", "a/../b"),
            "/api/v1/namespaces/models/configmaps/a%2F..%2Fb",
            "ConfigMap models/a/../b",
        ),
    ],
)
def test_where_objects_lie(target: Target, path: str, words: str) -> None:
    call = target.call("get", query={"limit": "5", "continue": "a b"})
    assert (call.path, call.what) == (path, words)
    assert call.url == f"{path}?limit=5&continue=a+b"


def test_a_new_object_is_posted_to_its_collection() -> None:
    call = Target("Lease", "models", "mine").call("create")
    assert (call.method, call.path.rpartition("/")[2]) == ("POST", "leases")
    assert str(call) == "create Lease models/mine"


@given(attempt=st.integers(1, 10_000), after_s=st.floats(0, 100), jitter=st.floats(0, 1))
def test_waits_are_bounded_and_never_shorter_than_asked(
    attempt: int, after_s: float, jitter: float
) -> None:
    waited_s = wait_s(attempt, after_s=after_s, jitter=jitter)
    assert max(after_s, 0.05) <= waited_s <= max(after_s, 5.0)


def test_waits_double() -> None:
    waits = [wait_s(n, after_s=0, jitter=1) for n in range(1, 9)]
    assert waits == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0])


@given(JSON)
def test_everything_includes_itself(value: Any) -> None:
    assert includes(value, value)


def test_defaults_may_be_added_and_nothing_else() -> None:
    written = {"a": 1, "list": [{"b": 2}]}
    assert includes({"a": 1, "list": [{"b": 2, "default": 3}], "more": 4}, written)
    others: list[Any] = [{"a": 1}, {"a": 2, "list": [{"b": 2}]}, {"a": 1, "list": []}, None, []]
    for other in others:
        assert not includes(other, written)


def test_a_replaced_object_is_there_as_written() -> None:
    written = _object(spec={"a": 1}, annotations={"x": "1"})
    found = _object(spec={"a": 1}, annotations={"x": "1"}, resourceVersion="9", managedFields=[1])
    assert holds({**found, "status": {"ready": True}}, written)
    assert not holds(_object(spec={"a": 2}, annotations={"x": "1"}), written)
    assert not holds(_object(spec={"a": 1}, annotations={"x": "2"}), written)
    assert not holds(_object(spec={"a": 1}, annotations={"x": "1"}, labels={"l": "1"}), written)
    assert not holds({**found, "data": {"k": "v"}}, written)
    assert holds(_object(annotations={}), _object())
    assert holds_status({"status": {"ready": True}}, {"status": {"ready": True}, "spec": 1})
    assert not holds_status({}, {"status": {"ready": True}})


def test_a_watcher_is_told_every_change_once() -> None:
    seen = Seen({"kind": "Lease"})
    first, second = _object("a", resourceVersion="1"), _object("b", resourceVersion="2")
    assert _names(seen.listed([second, first], "5")) == ["a", "b"]
    assert seen.told({"type": "ADDED", "object": first}) is None
    changed = _object("a", resourceVersion="6")
    assert seen.told({"type": "MODIFIED", "object": changed}) == {"kind": "Lease", **changed}
    assert seen.version == "6"
    bookmark = {"metadata": {"resourceVersion": "8"}}
    assert seen.told({"type": "BOOKMARK", "object": bookmark}) is None
    assert seen.version == "8"
    ended = seen.told({"type": "DELETED", "object": _object("b", resourceVersion="9")})
    assert ended is not None
    assert "deletionTimestamp" in ended["metadata"]
    assert seen.told({"type": "DELETED", "object": _object("b", resourceVersion="9")}) is None


def test_a_list_after_a_gap_tells_what_changed_and_what_vanished() -> None:
    seen = Seen({})
    seen.listed([_object(n, resourceVersion="1") for n in "abc"], "5")
    again = _object("c", uid="other", resourceVersion="1")
    news = seen.listed([_object("a", resourceVersion="1"), again, _object("d")], "9")
    assert _names(news) == ["b", "c", "d"]
    assert ["deletionTimestamp" in obj["metadata"] for obj in news] == [True, False, False]
    assert seen.version == "9"


def test_the_time_of_deletion_is_the_servers_where_it_tells_one() -> None:
    seen = Seen({})
    seen.listed([_object("a")], "1")
    ended = _object("a", resourceVersion="2", deletionTimestamp="then")
    told = seen.told({"type": "DELETED", "object": ended})
    assert told is not None
    assert told["metadata"]["deletionTimestamp"] == "then"


def test_a_closed_node_has_nothing_to_give() -> None:
    node = {"spec": {}, "status": {"allocatable": {"nvidia.com/gpu": "2"}}}
    assert allocatable(node) == {"nvidia.com/gpu": "2"}
    assert allocatable({**node, "spec": {"unschedulable": True}}) == {}
    assert allocatable({"spec": {}}) == {}


def _object(name: str = "a", spec: Object | None = None, **metadata: Any) -> Object:
    fixed = {"name": name, "uid": f"uid-{name}", "resourceVersion": "1"}
    return {"metadata": {**fixed, **metadata}, "spec": spec or {}}


def _names(objects: list[Object]) -> list[str]:
    return [obj["metadata"]["name"] for obj in objects]
