"""`spec.canary[]`: what KServe is asked for, and how its missing split is noticed."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest

from penstock.core.checks import refuse
from penstock.core.errors import ConfigurationError
from serving.cluster import Object
from serving.kserve import standard
from serving.manifests import ROOT as ROOT_MARK
from serving.manifests import VERSION
from tests.unit.serving.kserve.definitions import mistakes
from tests.unit.serving.kserve.objects import FACTS, ROOT, release, spec


def made(version: int, **fields: Any) -> Object:
    """Return the InferenceService of a name with one version, at a place of its own."""
    place = f"s3://models/v{version}/{ROOT.hex}"
    return standard.inference_service(spec(replicas=4, **fields), release(version, place), FACTS)


def both(percent: int = 0) -> Object:
    """Return it with version 2 as the candidate."""
    obj = standard.with_candidate(
        made(1), standard.snapshot(made(2, runtime_args=["--fault=live-delay=1"]))
    )
    return standard.with_weight(obj, percent) if percent else obj


def test_a_candidate_begins_without_a_share_and_with_a_pod() -> None:
    obj = both()
    (canary,) = obj["spec"]["canary"]
    assert (canary["trafficPercent"], canary["predictor"]["minReplicas"]) == (0, 1)
    assert canary["predictor"]["model"]["name"] == "", "the definition demands it"
    assert "maxReplicas" not in canary["predictor"], "the webhook refuses it"
    assert obj["spec"]["predictor"] == made(1)["spec"]["predictor"]
    assert standard.weights_of(obj) == {"v1": 100, "v2": 0}
    assert mistakes(obj) == []


@pytest.mark.parametrize(("percent", "pods"), [(10, 1), (26, 2), (50, 2), (100, 4)])
def test_a_share_brings_the_pods_it_needs(percent: int, pods: int) -> None:
    obj = both(percent)
    assert standard.weights_of(obj) == {"v1": 100 - percent, "v2": percent}
    assert obj["spec"]["canary"][0]["predictor"]["minReplicas"] == pods
    assert mistakes(obj) == []


def test_what_is_promoted_is_what_its_pods_were_made_of() -> None:
    obj = both(100)
    after = standard.promoted(obj)
    asked, found = obj["spec"]["canary"][0]["predictor"], after["spec"]["predictor"]
    pods = {key: value for key, value in asked.items() if key not in ("model", "minReplicas")}
    assert {key: found[key] for key in pods} == pods
    assert found["model"] == {key: v for key, v in asked["model"].items() if key != "name"}
    assert (found["minReplicas"], found["maxReplicas"]) == (4, 4)
    assert "canary" not in after["spec"]
    assert after["metadata"] == obj["metadata"], "annotations reach all pods"
    assert standard.weights_of(after) == {"v2": 100}
    assert mistakes(after) == []


def test_what_a_candidate_leaves_out_is_the_stable_versions_also_when_promoted() -> None:
    obj = both(100)
    obj["spec"]["predictor"] = {**obj["spec"]["predictor"], "nodeSelector": {"zone": "a"}}
    obj["spec"]["canary"][0]["predictor"]["model"]["resources"] = {}
    after = standard.promoted(obj)["spec"]["predictor"]
    assert after["nodeSelector"] == {"zone": "a"}
    assert after["model"]["resources"] == made(1)["spec"]["predictor"]["model"]["resources"]


def test_a_name_changes_together_with_its_place() -> None:
    before, after = (
        both(100)["spec"]["predictor"],
        standard.promoted(both(100))["spec"]["predictor"],
    )
    assert (before["name"], after["name"]) == ("v1", "v2")
    assert before["model"]["storageUri"] != after["model"]["storageUri"]


def test_rolled_back_is_as_before() -> None:
    assert standard.rolled_back(both(10)) == made(1)


def test_the_version_before_comes_back_as_a_candidate_of_its_own() -> None:
    kept = standard.snapshot(made(1))
    again = standard.with_candidate(standard.promoted(both(100)), kept)
    assert standard.weights_of(again) == {"v2": 100, "v1": 0}
    back = standard.promoted(standard.with_weight(again, 100))
    assert standard.snapshot(back) == kept


def test_what_differs_between_versions_is_not_where_all_pods_get_it() -> None:
    one, two = made(1), made(2)
    assert one["metadata"] == two["metadata"]
    assert one["spec"]["predictor"]["labels"] == {VERSION: "1"}
    assert one["spec"]["predictor"]["annotations"] == {ROOT_MARK: str(ROOT)}


def test_a_candidate_is_ready_when_its_own_status_says_so() -> None:
    obj = both()
    assert not standard.candidate_ready(obj)
    status = {"name": "v2", "ready": True, "trafficPercent": 0}
    assert standard.candidate_ready({**obj, "status": {"canaryStatuses": [status]}})
    other = {**status, "name": "v1"}
    assert not standard.candidate_ready({**obj, "status": {"canaryStatuses": [other]}})


def _route(**weights: int) -> Object:
    """Return an HTTPRoute as KServe's controller writes it."""
    refs = [
        {"kind": "Service", "name": f"chat-{name}-predictor", "port": 80, "weight": weight}
        for name, weight in weights.items()
    ]
    return {"metadata": {"name": "chat"}, "spec": {"rules": [{"backendRefs": refs}]}}


def test_a_split_that_is_missing_is_refused_with_its_fix() -> None:
    check = standard.split(both(10), _route(v1=1))
    assert not check.ok
    with pytest.raises(ConfigurationError, match="not to chat-v2-predictor") as refused:
        refuse([check])
    assert "mode at auto" in refused.value.hint
    assert not standard.split(both(10), _route(v1=100, v2=0)).ok


def test_a_split_that_is_there_is_believed() -> None:
    assert standard.split(both(10), _route(v1=90, v2=10)).ok
    assert standard.split(both(), _route(v1=100)).ok, "a candidate at 0 % is not missing"
    assert standard.split(both(100), _route(v2=100)).ok


def test_nothing_is_changed_in_place() -> None:
    obj = both(10)
    before = deepcopy(obj)
    standard.promoted(obj), standard.rolled_back(obj), standard.with_weight(obj, 50)
    assert obj == before
