"""The mechanisms: weights go in, and the same weights come out."""

from __future__ import annotations

from typing import Any

import pytest

from penstock.core.errors import Conflict
from penstock.core.identity import Digest
from penstock.core.spec import ModelSpec
from serving.cluster import Object
from serving.headers import SERVICE
from serving.kserve.facts import Facts
from serving.kserve.llm_inference_service import weight_of
from serving.kserve.traffic import IstioTraffic, LlmTraffic, RouteTraffic
from serving.manifests import Release, scaled
from serving.traffic import Traffic
from tests.fakes.cluster import MemoryCluster
from tests.unit.serving.kserve.objects import STORED

FACTS = Facts()
SPEC = ModelSpec.model_validate({"name": "m", "source": "hf://a/b"})
ROOT = Digest.of(b"x")
RELEASE = Release(2, f"s3://bucket/models/{ROOT.hex}", ROOT)
BOTH = {"m-v1": 75, "m-v2": 25}


@pytest.mark.parametrize("replicas", [1, 2])
def test_replicas_have_a_budget_that_their_version_owns(replicas: int) -> None:
    both: list[Traffic] = [RouteTraffic(FACTS), LlmTraffic(FACTS)]
    for traffic in both:
        spec = SPEC.model_copy(update={"replicas": replicas})
        version = scaled(traffic.version(spec, RELEASE), 1)  # it may begin with fewer
        version["metadata"] |= {"uid": "0d5e", **STORED}
        found = traffic.budgets(version, replicas)
        assert [each["kind"] for each in found] == ["PodDisruptionBudget"] * (replicas - 1)
        if found:
            (owner,) = found[0]["metadata"]["ownerReferences"]
            assert (owner["kind"], owner["uid"]) == (traffic.served, "0d5e")


@pytest.mark.parametrize("traffic", [RouteTraffic(FACTS), LlmTraffic(FACTS), IstioTraffic(FACTS)])
def test_a_carrier_keeps_what_it_is_told_and_everything_else(traffic: Any) -> None:
    made = traffic.carrying("m", {"m-v1": 100})
    assert traffic.weights_of(made) == {"m-v1": 100}
    marked = {**made, "metadata": {**made["metadata"], "annotations": {"a": "b"}}}
    changed = traffic.weighted(marked, BOTH)
    assert traffic.weights_of(changed) == BOTH
    assert changed["metadata"]["annotations"]["a"] == "b"
    assert changed["spec"].keys() == made["spec"].keys()
    assert traffic.weights_of(traffic.weighted(changed, {"m-v2": 100})) == {"m-v2": 100}


def test_a_carrier_belongs_to_one_mechanism() -> None:
    kinds: list[Traffic] = [RouteTraffic(FACTS), LlmTraffic(FACTS), IstioTraffic(FACTS)]
    for own in kinds:
        made = own.carrying("m", BOTH)
        theirs = [other for other in kinds if other.carrier == made["kind"]]
        assert [other.carries(made) for other in theirs] == [other is own for other in theirs]


@pytest.mark.parametrize(
    ("traffic", "suffix"),
    [(RouteTraffic(FACTS), "-predictor"), (LlmTraffic(FACTS), "-kserve-workload-svc")],
)
def test_a_version_at_nothing_is_reached_by_its_name_alone(traffic: Any, suffix: str) -> None:
    rules = traffic.carrying("m", {"m-v1": 100, "m-v2": 0})["spec"]["rules"]
    found = [
        (rule["matches"][0]["headers"][0]["value"], ref["name"], ref["weight"])
        for rule in rules
        for ref in rule["backendRefs"]
        if rule["matches"][0].get("headers")
    ]
    assert set(found) == {(name, f"{name}{suffix}", 1) for name in ("m-v1", "m-v2")}
    named = {r["matches"][0]["headers"][0]["name"] for r in rules if "headers" in r["matches"][0]}
    assert named == {SERVICE}


class Busy(MemoryCluster):
    """A cluster whose own controller writes just before we do."""

    conflicts = 2

    def replace(self, obj: Object, *, dry_run: bool = False) -> Object:
        if self.conflicts:
            self.conflicts -= 1
            raise Conflict("its controller was faster")
        return super().replace(obj, dry_run=dry_run)


def _members(cluster: MemoryCluster, traffic: LlmTraffic) -> None:
    for number in (1, 2):
        cluster.create(traffic.version(SPEC, Release(number, RELEASE.storage_uri, ROOT)))


def _shares(cluster: MemoryCluster) -> dict[str, int]:
    return {o["metadata"]["name"]: weight_of(o) for o in cluster.list("LLMInferenceService")}


def test_members_follow_the_carrier_whoever_else_writes() -> None:
    traffic, cluster = LlmTraffic(FACTS), Busy()
    _members(cluster, traffic)
    traffic.enforce(cluster, traffic.carrying("m", {**BOTH, "m-v9": 0}))
    assert _shares(cluster) == BOTH


def test_a_member_that_is_out_of_the_carrier_gets_nothing() -> None:
    traffic, cluster = LlmTraffic(FACTS), MemoryCluster()
    _members(cluster, traffic)
    other = SPEC.model_copy(update={"name": "other"})
    cluster.create(traffic.version(other, Release(1, RELEASE.storage_uri, ROOT)))
    traffic.enforce(cluster, traffic.carrying("other", {"other-v1": 100}))
    traffic.enforce(cluster, traffic.carrying("m", BOTH))
    traffic.enforce(cluster, traffic.carrying("m", {"m-v1": 100}))
    assert _shares(cluster) == {"m-v1": 100, "m-v2": 0, "other-v1": 100}


def test_a_share_is_no_change_of_a_version_and_an_argument_is() -> None:
    traffic, cluster = LlmTraffic(FACTS), MemoryCluster()
    cluster.create(traffic.version(SPEC, RELEASE))
    before = cluster.get("LLMInferenceService", "m-v2")
    assert before is not None
    traffic.enforce(cluster, traffic.carrying("m", BOTH))
    after = cluster.get("LLMInferenceService", "m-v2")
    assert after is not None
    assert weight_of(after) != weight_of(before)
    assert traffic.content(after) == traffic.content(before)
    lending = {**after, "spec": {**after["spec"], "replicas": 9}}
    assert traffic.content(lending) == traffic.content(before)
    edited = {**after, "spec": {**after["spec"], "model": {}}}
    assert traffic.content(edited) != traffic.content(before)
    route = RouteTraffic(FACTS)
    version = route.version(SPEC, RELEASE)
    assert route.content(scaled(version, 9)) == route.content(version)
    other = route.version(
        SPEC.model_copy(update={"runtime_args": ["--fault=live-delay=1"]}), RELEASE
    )
    assert route.content(other) != route.content(version)
