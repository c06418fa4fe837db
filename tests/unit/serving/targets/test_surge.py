"""What a cluster shows of its devices decides; what it does not show hinders nothing."""

from __future__ import annotations

from typing import Any

import pytest

from penstock.core.spec import KServe, ModelSpec
from serving.cluster import Kind, Object
from serving.gpus.surge import Beside, Borrow, Refuse
from serving.kserve.facts import Storage
from serving.kube.calls import Call
from serving.kube.errors import Unreachable
from serving.targets.checks import Found
from serving.targets.kserve import ClusterTarget
from tests.unit.serving.gpus.nodes import L4, NVIDIA, pod
from tests.unit.serving.targets.test_why import Api

OWN = {
    "metadata": {"name": "m-v1", "annotations": {"serving.kserve.io/autoscalerClass": "none"}},
    "kind": "InferenceService",
    "spec": {"predictor": {"minReplicas": 4, "maxReplicas": 4}},
}
PODS = [pod("l"), pod("l"), pod("l"), pod("l")]


class Cluster:
    """A cluster whose API is `Api`, with one version."""

    namespace = "models"

    def __init__(self, api: Api, version: Object | None) -> None:
        self.api, self.version = api, version

    def get(self, kind: Kind, name: str) -> Object | None:
        assert (kind, name) == ("InferenceService", "m-v1")
        return self.version


def _decided(spec: dict[str, Any], version: Object | None = OWN, **found: Any) -> Any:
    api = Api(**found)
    cluster: Any = Cluster(api, version)
    target = ClusterTarget(cluster, KServe(), Storage(), Found())
    body = {"name": "m", "source": "hf://a/b", "hardware": {"accelerator": "nvidia-l4"}, **spec}
    decided = target.surge(ModelSpec.model_validate(body), "m-v2", "m-v1")
    return decided, [call.url for call in api.asked]


def test_pods_of_all_namespaces_and_all_nodes_are_looked_at() -> None:
    decided, asked = _decided({}, nodes=[L4], pods=PODS[:2])
    assert isinstance(decided, Beside)
    assert asked[:2] == ["/api/v1/nodes", "/api/v1/pods"]
    refused, _ = _decided({}, nodes=[L4], pods=PODS)
    assert isinstance(refused, Refuse)


def test_the_version_that_is_served_lends_its_own_pods() -> None:
    decided, asked = _decided({"rollout": {"surge": "borrow"}}, nodes=[L4], pods=PODS)
    assert isinstance(decided, Borrow)
    assert (decided.loan.stable, decided.loan.owns, decided.loan.keeps) == ("m-v1", 4, 3)
    assert asked[2].startswith("/api/v1/namespaces/models/pods?labelSelector=")


@pytest.mark.parametrize(
    "version",
    [None, {**OWN, "metadata": {"name": "m-v1", "annotations": {}}}],
    ids=["gone", "its replicas are an autoscaler's"],
)
def test_replicas_that_are_not_ours_to_move_are_not_lent(version: Object | None) -> None:
    for surge in ("borrow", "swap"):
        spec = {"rollout": {"surge": surge}}
        decided, _ = _decided(spec, version, nodes=[L4], pods=PODS)
        assert isinstance(decided, Refuse)


@pytest.mark.parametrize("found", [{}, {"nodes": [L4]}, {"pods": PODS}])
def test_what_may_not_be_seen_is_not_known_and_refuses_nothing(found: dict[str, Any]) -> None:
    for surge in ("beside", "borrow", "swap"):
        decided, _ = _decided({"rollout": {"surge": surge}}, **found)
        assert isinstance(decided, Beside)
        assert "not known whether it fits" in decided.told


def test_a_list_that_takes_too_long_refuses_nothing() -> None:
    """Many thousands of pods come in many pages."""

    class Slow(Api):
        def list(self, call: Call) -> Any:
            raise Unreachable(f"{call}: no answer in 10 s")

    cluster: Any = Cluster(Slow(), OWN)
    target = ClusterTarget(cluster, KServe(), Storage(), Found())
    body = {"name": "m", "source": "hf://a/b", "hardware": {"accelerator": "nvidia-l4"}}
    decided = target.surge(ModelSpec.model_validate(body), "m-v2", "m-v1")
    assert isinstance(decided, Beside)
    assert "not known whether it fits" in decided.told


def test_who_wants_no_devices_and_who_says_so_asks_nobody() -> None:
    decided, asked = _decided({"hardware": {}})
    assert (isinstance(decided, Beside), asked) == (True, [])
    decided, asked = _decided({"rollout": {"surge": "unchecked"}})
    assert (isinstance(decided, Beside), asked) == (True, [])


def test_claims_are_counted_by_slices() -> None:
    device = {
        "name": "gpu-0",
        "attributes": {"productName": {"string": "NVIDIA L4"}, "type": {"string": "gpu"}},
        "capacity": {"memory": {"value": "23034Mi"}},
    }
    own = {"driver": "gpu.nvidia.com", "nodeName": "l", "pool": {"name": "l"}, "devices": [device]}
    spec = {"hardware": {"accelerator": "nvidia-l4", "claim": "dra"}}
    seen: dict[str, Any] = {"nodes": [L4], "pods": [], "resourceslices": [{"spec": own}]}
    decided, _ = _decided(spec, resourceclaims=[], **seen)
    assert isinstance(decided, Beside)
    result = {"driver": "gpu.nvidia.com", "pool": "l", "device": "gpu-0"}
    taken = {"status": {"allocation": {"devices": {"results": [result]}}}}
    decided, _ = _decided(spec, resourceclaims=[taken], **seen)
    assert isinstance(decided, Refuse)
    decided, _ = _decided(spec, **seen)
    assert decided.told.startswith("not known")


def test_a_node_that_is_emptied_of_devices_shows_what_is_there() -> None:
    refused, _ = _decided({"replicas": 2}, nodes=[L4], pods=PODS[:3])
    assert "1 such pod would find nvidia.com/gpu" in refused.reason
    assert "l has 1 free" in refused.reason
    assert NVIDIA in refused.change
