"""By which mechanism a name's users are led already."""

from __future__ import annotations

import pytest

from penstock.core.spec import KServe
from serving.cluster import Kind
from serving.kserve.facts import Facts, Storage
from serving.kserve.traffic import IstioTraffic, LlmTraffic, RouteTraffic
from serving.targets.checks import Found
from serving.targets.kserve import ClusterTarget
from serving.targets.probe import led_by
from tests.fakes.cluster import MemoryCluster
from tests.unit.serving.targets.test_why import Api, Cluster

KINDS: dict[Kind, tuple[str, ...]] = {
    "InferenceService": ("v1beta1",),
    "LLMInferenceService": ("v1alpha2",),
    "HTTPRoute": ("v1",),
    "VirtualService": ("v1",),
}
FOUND = Found(kinds=KINDS)


@pytest.mark.parametrize(
    ("mode", "traffic"),
    [("route", RouteTraffic), ("istio", IstioTraffic), ("llmisvc", LlmTraffic)],
)
def test_every_mechanism_is_known_by_its_carrier(
    mode: str, traffic: type[RouteTraffic | LlmTraffic]
) -> None:
    cluster = MemoryCluster()
    assert led_by(cluster, "m", Facts(), FOUND) == ""
    cluster.create(traffic(Facts()).carrying("m", {"m-v1": 100}))
    assert led_by(cluster, "m", Facts(), FOUND) == mode


def test_a_route_that_is_not_ours_leads_nobody_of_ours() -> None:
    """KServe makes one for an InferenceService, by its name."""
    cluster = MemoryCluster()
    theirs = RouteTraffic(Facts()).carrying("m", {"m": 100})
    theirs["metadata"]["labels"] = {}
    cluster.create(theirs)
    assert led_by(cluster, "m", Facts(), FOUND) == ""


@pytest.mark.parametrize(
    ("mode", "selector"),
    [
        ("route", "serving.kserve.io/inferenceservice=llama-v2"),
        ("llmisvc", "penstock.dev/name=llama,penstock.dev/version=2"),
    ],
)
def test_pods_are_found_whatever_an_adopted_version_is_called(mode: str, selector: str) -> None:
    api = Api(pods=[])
    where = KServe.model_validate({"mode": mode})
    target = ClusterTarget(Cluster(api), where, Storage(), FOUND)  # type: ignore[arg-type]
    assert target.pods("llama-v2") == []
    assert api.asked[0].query == {"labelSelector": selector}
