"""An InferenceService of others becomes a stable version: only a route is written."""

from __future__ import annotations

from typing import Any

import pytest

from penstock.core.errors import ConfigurationError, NotReady
from serving import controller as acting
from serving.adoption import act
from serving.adoption.adopt import name_of
from serving.cluster import Object
from serving.kserve.llm_inference_service import PATHS
from serving.manifests import NAME
from tests.unit.serving.adoption.objects import HOST, TRAFFIC, isvc, theirs

LOCAL = {"networking.kserve.io/visibility": "cluster-local"}


def test_only_a_route_is_written_and_users_keep_their_host() -> None:
    cluster = theirs()
    before = cluster.get("InferenceService", "old")
    assert cluster.adopt() == ["create HTTPRoute m", "replace HTTPRoute m"]
    assert cluster.get("InferenceService", "old") == before
    route = cluster.get("HTTPRoute", "m")
    assert route is not None
    assert route["spec"]["hostnames"] == ["m-models.example.com", "m.models.example.com", HOST]
    assert cluster.weights() == {"old": 100}
    assert acting.stable_of(cluster, "m", TRAFFIC) == "old"
    assert TRAFFIC.carries(route)


def test_its_paths_win_over_kserves_route_also_when_weights_change() -> None:
    cluster = theirs()
    cluster.adopt()
    route = cluster.get("HTTPRoute", "m")
    assert route is not None
    for weights in ({"old": 90, "m-v1": 10}, {"m-v1": 100}):
        route = cluster.replace(TRAFFIC.weighted(route, weights))
        shared, *_ = route["spec"]["rules"]
        exact = [m["path"]["value"] for m in shared["matches"] if m["path"]["type"] == "Exact"]
        assert exact == list(PATHS)
        assert shared["matches"][-1]["path"] == {"type": "PathPrefix", "value": "/"}
        assert cluster.weights() == weights


def test_users_meet_the_adopted_version_all_the_time() -> None:
    cluster = theirs()
    cluster.adopt()
    assert [met[HOST] for met in cluster.led] == [{"old-predictor"}] * 2
    ahead, opened = cluster.led
    assert "m-models.example.com" not in ahead, "proxies learn of it before it leads anybody"
    assert opened["m-models.example.com"] == {"old-predictor"}


def test_adopting_again_writes_nothing() -> None:
    cluster = theirs()
    cluster.adopt()
    assert cluster.adopt() == []


def test_a_route_that_the_gateway_does_not_accept_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(act, "ROUTED_S", 0.0)
    with pytest.raises(NotReady, match="kserve/kserve-ingress-gateway has not looked at it yet"):
        theirs(accepts=False).adopt()


def test_kserves_own_route_is_taken_over_once_kserve_leaves_it_alone() -> None:
    obj = isvc("m")
    with pytest.raises(ConfigurationError, match="KServe writes an HTTPRoute of that name") as told:
        theirs(obj).adopt("m")
    assert "label isvc m networking.kserve.io/visibility=cluster-local" in told.value.hint
    obj["metadata"]["labels"] = LOCAL
    cluster = theirs(obj)
    before = cluster.get("HTTPRoute", "m")
    assert cluster.adopt("m") == ["replace HTTPRoute m"]
    route = cluster.get("HTTPRoute", "m")
    assert route is not None
    assert before is not None
    assert route["metadata"]["uid"] == before["metadata"]["uid"], "users never were without it"
    assert "ownerReferences" not in route["metadata"], "it would go with its first version"
    assert route["metadata"]["labels"] == {NAME: "m"}
    assert HOST in route["spec"]["hostnames"]
    assert cluster.weights() == {"m": 100}
    assert cluster.adopt("m") == []


def _mode(mode: str) -> Object:
    obj = isvc()
    obj["metadata"]["annotations"] = {"serving.kserve.io/deploymentMode": mode}
    return obj


def _labelled() -> Object:
    obj = isvc()
    obj["metadata"]["labels"] = {NAME: "m"}
    return obj


@pytest.mark.parametrize(
    ("obj", "said"),
    [
        (_mode("Knative"), "deployment mode is Knative"),
        (_mode("Serverless"), "deployment mode is Serverless"),
        (isvc(transformer={"containers": []}, predictor={"model": {}}), "a part transformer"),
        (isvc(predictor={"name": "v1", "model": {}}), "its predictor has a name"),
        (isvc(predictor={"model": {}, "workerSpec": {"size": 2}}), "several nodes"),
        (isvc("m-v3"), "Penstock itself calls version 3 of m so"),
        (_labelled(), "Penstock created it"),
    ],
)
def test_what_cannot_be_adopted_is_refused_with_the_reason(obj: Object, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said) as problem:
        theirs(obj).adopt(obj["metadata"]["name"], "m")
    assert problem.value.hint


def test_one_that_does_not_serve_is_refused() -> None:
    cluster = theirs()
    found = cluster.get("InferenceService", "old")
    assert found is not None
    condition = {"type": "Ready", "status": "False", "message": "no node has room"}
    cluster.replace_status({**found, "status": {"conditions": [condition]}})
    with pytest.raises(ConfigurationError, match="not ready: no node has room"):
        cluster.adopt()
    with pytest.raises(ConfigurationError, match="no InferenceService new; there are: old"):
        cluster.adopt("new")


def test_a_name_that_is_served_and_a_foreign_gateway_are_refused() -> None:
    cluster = theirs()
    cluster.create(TRAFFIC.carrying("m", {"m-v1": 100}))
    with pytest.raises(ConfigurationError, match="m is led elsewhere already"):
        cluster.adopt()
    cluster = theirs()
    own = cluster.get("HTTPRoute", "old")
    assert own is not None
    parents = [{"name": "edge", "namespace": "infra"}]
    cluster.replace({**own, "spec": {**own["spec"], "parentRefs": parents}})
    with pytest.raises(ConfigurationError, match="do not come by Gateway kserve/") as problem:
        cluster.adopt()
    assert "--gateway" in problem.value.hint
    hosts = [HOST, "example.com"]
    cluster = theirs()
    own = cluster.get("HTTPRoute", "old")
    assert own is not None
    cluster.replace({**own, "spec": {**own["spec"], "hostnames": hosts}})
    with pytest.raises(ConfigurationError, match=r"at example\.com, which other models share"):
        cluster.adopt()


@pytest.mark.parametrize(
    ("predictor", "name"),
    [
        ({"model": {"args": ["--model_name=chat", "--dtype=float32"]}}, "chat"),
        ({"model": {"args": ["--served-model-name", "chat"]}}, "chat"),
        ({"containers": [{"args": ["--model-name", "chat"]}]}, "chat"),
        ({"model": {"args": ["--max-model-len", "100"]}}, "old"),
        ({"model": {}}, "old"),
    ],
)
def test_a_model_is_called_as_its_engine_is_told(predictor: Any, name: str) -> None:
    assert name_of(isvc(predictor=predictor)) == name
