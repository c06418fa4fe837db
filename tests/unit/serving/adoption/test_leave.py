"""A version is given back: users are led all the time, and nothing of Penstock's stays."""

from __future__ import annotations

import json

import pytest

from penstock.core.errors import ConfigurationError, Conflict
from penstock.core.spec import Rollout
from serving import controller as acting
from serving import lease
from serving.adoption import act
from serving.adoption.leave import leave
from serving.cluster import Kind, Object
from serving.rollout.record import first_record
from serving.targets.configmaps import ConfigMapLog, keep_prompts
from tests.unit.serving.adoption.objects import HOST, TRAFFIC, Namespace, isvc, theirs
from tests.unit.serving.kserve.objects import release, spec

KINDS: tuple[Kind, ...] = ("InferenceService", "HTTPRoute", "ConfigMap", "Lease")


def _ours() -> Namespace:
    """Return a namespace in which Penstock serves version 2 of `chat`, after a rollout."""
    cluster = Namespace()
    cluster.create(TRAFFIC.version(spec(), release(2)))
    cluster.create(TRAFFIC.carrying("chat", {"chat-v2": 100}))
    ConfigMapLog(cluster).append("chat", "{}")
    keep_prompts(cluster, "chat-v2", "prompts")
    lease.acquire(cluster, "chat", "somebody", 0.0)
    return cluster


def _all(cluster: Namespace) -> list[Object]:
    return [obj for kind in KINDS for obj in cluster.list(kind)]


def test_nothing_of_penstocks_stays_and_its_route_goes_last() -> None:
    cluster = _ours()
    assert cluster.leave("chat") == [
        "create HTTPRoute chat-v2-users",
        "replace InferenceService chat-v2",
        "delete ConfigMap penstock-events-chat-00000",
        "delete ConfigMap penstock-prompts-chat-v2-0",
        "delete Lease penstock-rollout-chat",
        "replace HTTPRoute chat",
        "delete HTTPRoute chat",
    ]
    served, users = _all(cluster)
    for obj in (served, users):
        words = {**obj["metadata"].get("labels", {}), **obj["metadata"].get("annotations", {})}
        assert not [key for key in words if key.startswith("penstock.dev/")]
    assert served["spec"] == TRAFFIC.version(spec(), release(2))["spec"]
    assert "X-Penstock-Service" not in json.dumps(users)
    assert users["spec"]["hostnames"] == ["chat-models.example.com", "chat.models.example.com"]
    (rule,) = users["spec"]["rules"]
    assert [ref["name"] for ref in rule["backendRefs"]] == ["chat-v2-predictor"]
    assert cluster.leave("chat") == []


def test_users_meet_the_version_by_both_hosts_all_the_time() -> None:
    cluster = _ours()
    cluster.leave("chat")
    hosts = ("chat-models.example.com", "chat.models.example.com")
    assert len(cluster.led) == 7
    assert all(met == {host: {"chat-v2-predictor"} for host in hosts} for met in cluster.led)
    assert not [event for event in cluster.happened[:-2] if event.endswith("HTTPRoute chat")]


def test_one_that_was_closed_already_is_only_removed() -> None:
    cluster = _ours()
    closing = iter(leave(act.around_name(cluster, "chat"), "chat"))
    route = next(write.obj for write in closing if write.verb == "replace" and write.routed)
    cluster.replace(route)
    assert cluster.weights("chat") == {}, "no request meets it"
    *_, last = cluster.leave("chat")
    assert (last, cluster.happened.count("replace HTTPRoute chat")) == ("delete HTTPRoute chat", 0)


def test_other_models_are_left_alone() -> None:
    cluster = _ours()
    ConfigMapLog(cluster).append("chat-large", "{}")
    keep_prompts(cluster, "chat-large-v1", "prompts")
    cluster.leave("chat")
    assert [obj["metadata"]["name"] for obj in cluster.list("ConfigMap")] == [
        "penstock-events-chat-large-00000",
        "penstock-prompts-chat-large-v1-0",
    ]


def test_an_adopted_version_needs_only_our_route_removed() -> None:
    cluster = theirs()
    before = _all(cluster)
    cluster.adopt()
    assert cluster.leave() == ["replace HTTPRoute m", "delete HTTPRoute m"]
    assert _all(cluster) == before


def test_one_whose_route_was_taken_over_gets_another() -> None:
    obj = isvc("m")
    obj["metadata"]["labels"] = {"networking.kserve.io/visibility": "cluster-local"}
    cluster = theirs(obj)
    before = cluster.list("InferenceService")
    cluster.adopt("m")
    assert cluster.leave() == [
        "create HTTPRoute m-users",
        "replace HTTPRoute m",
        "delete HTTPRoute m",
    ]
    assert cluster.list("InferenceService") == before
    (users,) = cluster.list("HTTPRoute")
    assert HOST in users["spec"]["hostnames"]


def test_what_was_interrupted_goes_on_where_it_stopped() -> None:
    class Interrupted(Namespace):
        left = 2

        def delete(
            self, kind: Kind, name: str, *, read: Object | None = None, foreground: bool = False
        ) -> None:
            self.left -= 1
            if self.left < 0:
                raise Conflict("the connection broke")
            super().delete(kind, name, read=read, foreground=foreground)

    cluster, whole = Interrupted(), _ours()
    for obj in _all(whole):
        made = cluster.create(obj)
        if obj["kind"] == "HTTPRoute":
            cluster.replace_status({**made, "status": obj["status"]})
    with pytest.raises(Conflict):
        cluster.leave("chat")
    assert cluster.get("HTTPRoute", "chat") is not None, "ours goes last"
    cluster.left = 99
    assert cluster.leave("chat") == [
        "delete Lease penstock-rollout-chat",
        "replace HTTPRoute chat",
        "delete HTTPRoute chat",
    ]
    assert len(_all(cluster)) == 2


def test_what_is_not_settled_is_refused() -> None:
    cluster = _ours()
    policy = Rollout()
    record = first_record("chat-v3", "chat-v2", policy, 0.0)
    acting.begin(cluster, ConfigMapLog(cluster), "chat", record, policy, traffic=TRAFFIC)
    with pytest.raises(ConfigurationError, match="a rollout of chat-v3 goes on"):
        cluster.leave("chat")
    cluster = _ours()
    route = cluster.get("HTTPRoute", "chat")
    assert route is not None
    split = cluster.replace(TRAFFIC.weighted(route, {"chat-v1": 50, "chat-v2": 50}))
    with pytest.raises(ConfigurationError, match="not one version has all traffic"):
        cluster.leave("chat")
    cluster.replace(TRAFFIC.weighted(split, {"chat-v2": 100}))
    cluster.create(TRAFFIC.version(spec(), release(1)))
    with pytest.raises(ConfigurationError, match="chat-v1 is still there, without traffic"):
        cluster.leave("chat")
    cluster.delete("InferenceService", "chat-v1")
    cluster.delete("InferenceService", "chat-v2")
    with pytest.raises(ConfigurationError, match="leads to chat-v2, which is not there"):
        cluster.leave("chat")


def test_a_plan_says_which_hosts_end() -> None:
    cluster = theirs()
    cluster.adopt()
    see, ending, last = leave(act.around_name(cluster, "m"), "m")
    assert str(see).startswith("see HTTPRoute old: KServe's own")
    assert "nobody answers to m-models.example.com, m.models.example.com any more" in str(ending)
    assert str(last) == "delete HTTPRoute m: leads nobody any more"
