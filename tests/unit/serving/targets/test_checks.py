"""What keeps a cluster from serving a model is said before anything changes, with its fix."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from penstock.core.checks import Check, refuse
from penstock.core.errors import ConfigurationError
from penstock.core.replica import Hardware
from penstock.core.spec import KServe, ModelSpec, Rollout
from serving.cluster import Kind
from serving.gpus.offers import Offer
from serving.kserve.facts import Gateway, Storage
from serving.targets.checks import (
    Found,
    address_of,
    checks,
    facts_of,
    gateway_of,
    mechanism,
    rights_for,
)

WHERE = KServe.model_validate({"namespace": "models"})
SPEC = ModelSpec.model_validate({"name": "m", "source": "hf://a/b"})
GATEWAY = {
    "status": {
        "addresses": [{"value": "10.0.0.9"}],
        "conditions": [{"type": "Programmed", "status": "True"}],
    }
}
WELL = Found(
    server="v1.34.4",
    kinds={"InferenceService": ("v1beta1",), "HTTPRoute": ("v1",), "LLMInferenceService": ()},
    kserve="0.20.0",
    ingress={"enableGatewayApi": True, "ingressDomain": "models.example"},
    gateway=GATEWAY,
    runtimes={"penstock-cpu": True},
    gpus=0,
)


def _wrong(found: Found, where: KServe = WHERE, spec: ModelSpec = SPEC) -> list[Check]:
    return [check for check in checks(found, where, spec) if not check.ok]


def _gateway(**status: Any) -> dict[str, Any]:
    return {"status": {**GATEWAY["status"], **status}}


def test_a_cluster_that_can_is_not_refused() -> None:
    assert _wrong(WELL) == []
    refuse(checks(WELL, WHERE, SPEC))


def test_a_gateways_address_of_ipv6_stands_in_brackets() -> None:
    six = replace(WELL, gateway={"status": {"addresses": [{"value": "fd00::9"}]}})
    assert address_of(six, WHERE) == "http://[fd00::9]"


def test_scores_that_nobody_keeps_are_refused_on_a_cluster() -> None:
    """They would hold the rollout for good."""
    metrics = {
        "error_rate": {"kind": "errors", "tolerate": 0.01, "reject": 0.05},
        "helpful": {"kind": "score", "tolerate": 0.01, "reject": 0.05, "prove_in": ["live"]},
        "polite": {"kind": "score", "tolerate": 0.01, "reject": 0.05, "prove_in": ["shadow"]},
    }
    asked = SPEC.model_copy(update={"rollout": Rollout.model_validate({"metrics": metrics})})
    (wrong,) = _wrong(WELL, spec=asked)
    assert "nothing can prove helpful live" in wrong.found
    assert wrong.hint == "set prove_in: [shadow] for helpful"


@pytest.mark.parametrize(
    ("found", "name", "says", "hint"),
    [
        (
            replace(WELL, kinds={**WELL.kinds, "HTTPRoute": ()}, gateway=None),
            "HTTPRoute",
            "Gateway API is not installed",
            "install-on-a-cluster",
        ),
        (
            replace(WELL, kinds={**WELL.kinds, "InferenceService": ()}),
            "InferenceService",
            "KServe is not installed",
            "install-on-a-cluster",
        ),
        (replace(WELL, kserve="0.15.2"), "kserve", "0.15.2 is too old; allowed: 0.17", "upgrade"),
        (replace(WELL, gateway=None), "gateway", "no Gateway kserve/kserve-ingr", "target.kserve"),
        (
            replace(
                WELL,
                gateway=_gateway(conditions=[{"type": "Programmed", "message": "no proxy"}]),
            ),
            "gateway",
            "not programmed: no proxy",
            "controller running",
        ),
        (replace(WELL, gateway=_gateway(addresses=[])), "gateway address", "none", "address"),
        (
            replace(WELL, runtimes={"penstock-cpu": False}),
            "runtime",
            "no ServingRuntime penstock-cpu in namespace models",
            "kubectl -n models apply -k deploy/runtimes",
        ),
        (
            replace(WELL, missing=(("create", "InferenceService"), ("get", "Lease"))),
            "rights",
            "missing in namespace models: create InferenceService, get Lease",
            "kubectl -n models apply -k deploy/runner",
        ),
    ],
)
def test_what_is_missing_is_named_with_its_fix(
    found: Found, name: str, says: str, hint: str
) -> None:
    first = _wrong(found)[0]
    assert first.name == name
    assert says in first.found
    assert hint in first.hint
    with pytest.raises(ConfigurationError, match=name) as problem:
        refuse(checks(found, WHERE, SPEC))
    assert problem.value.hint == first.hint


def test_what_cannot_be_seen_is_no_refusal() -> None:
    blind = replace(WELL, kserve="", ingress={}, gpus=None, runtimes={"penstock-cpu": None})
    assert _wrong(blind) == []


@pytest.mark.parametrize(
    ("hardware", "offers", "says"),
    [
        ({"count": 2}, [Offer("nvidia.com/gpu", count=2)], ""),
        ({"count": 2}, [Offer("nvidia.com/gpu", "NVIDIA-L4", 23034, count=4)], ""),
        (
            {"count": 2},
            [Offer("nvidia.com/gpu", count=1)],
            "2 x nvidia-l4 wanted in one node, the largest has 1",
        ),
        (
            {},
            [Offer("nvidia.com/gpu", "NVIDIA-A10", 23028, count=4)],
            "no node offers nvidia-l4; at most on one node: 4 x NVIDIA-A10",
        ),
        (
            {"sharing": "mps"},
            [Offer("nvidia.com/gpu", "NVIDIA-L4", 23034, count=4)],
            "no node offers nvidia-l4 mps; at most on one node: 4 x NVIDIA-L4",
        ),
        ({}, [], "no node offers nvidia-l4; at most on one node: none"),
        ({}, None, ""),
        ({"claim": "dra"}, [], "the cluster does not serve ResourceClaims"),
    ],
)
def test_devices_that_no_node_has_are_refused_where_nodes_can_be_seen(
    hardware: dict[str, Any], offers: list[Offer] | None, says: str
) -> None:
    spec = ModelSpec.model_validate(
        {"name": "m", "source": "hf://a/b", "hardware": {"accelerator": "nvidia-l4", **hardware}}
    )
    found = replace(
        WELL,
        runtimes={"penstock-vllm": True},
        offers=None if offers is None else tuple(offers),
    )
    assert [check.found for check in _wrong(found, spec=spec)] == ([says] if says else [])
    unchecked = spec.model_copy(update={"rollout": Rollout(surge="unchecked")})
    assert _wrong(found, spec=unchecked) == _wrong(found, spec=spec) * ("claim" in hardware)


def test_what_follows_from_another_lack_is_not_told_again() -> None:
    bare = replace(WELL, kinds={**WELL.kinds, "HTTPRoute": (), "Gateway": ()}, gateway=None)
    assert [check.name for check in _wrong(bare)] == ["HTTPRoute"]


def test_what_cannot_be_read_for_want_of_a_right_is_told_as_that() -> None:
    blind = replace(WELL, runtimes={}, missing=(("get", "ServingRuntime"),))
    assert [check.name for check in _wrong(blind)] == ["rights", "runtime"]


def test_an_account_needs_the_rights_of_its_mechanism() -> None:
    route, llmisvc = set(rights_for("route")), set(rights_for("llmisvc"))
    assert {kind for _, kind in route - llmisvc} == {"InferenceService", "ServingRuntime"}
    assert {kind for _, kind in llmisvc - route} == {"LLMInferenceService"}
    assert ("update", "HTTPRoute") in route & llmisvc


def test_mode_istio_wants_its_kind_and_an_address_but_no_gateway_api() -> None:
    where = WHERE.model_copy(update={"mode": "istio", "address": "http://10.0.0.7"})
    kinds: dict[Kind, tuple[str, ...]] = {
        "InferenceService": ("v1beta1",),
        "VirtualService": ("v1",),
        "HTTPRoute": (),
    }
    found = replace(WELL, kinds=kinds, gateway=None)
    assert _wrong(found, where) == []
    assert gateway_of(where, {"ingressGateway": "mesh/own"}) == ("mesh", "own")
    (wrong,) = _wrong(found, where.model_copy(update={"address": None}))
    assert (wrong.name, "target.kserve.address" in wrong.hint) == ("gateway address", True)
    (wrong,) = _wrong(replace(found, kinds={**kinds, "VirtualService": ()}), where)
    assert "Istio is not installed" in wrong.found
    rights = set(rights_for("istio"))
    assert ("update", "VirtualService") in rights
    assert not {verb for verb, kind in rights if kind == "HTTPRoute"}


@pytest.mark.parametrize(("version", "ok"), [("0.20.0", False), ("", False), ("0.21.0", True)])
def test_mode_standard_wants_a_kserve_that_splits(version: str, ok: bool) -> None:
    where = WHERE.model_copy(update={"mode": "standard"})
    wrong = _wrong(replace(WELL, kserve=version), where)
    assert [check.name for check in wrong] == ([] if ok else ["mode standard"])
    if not ok:
        assert "kserve#5912" in wrong[0].found
        assert "mode route" in wrong[0].hint


def test_mode_standard_believes_what_is_routed_more_than_a_version() -> None:
    canary = {"predictor": {"name": "v2"}, "trafficPercent": 10}
    service = {
        "metadata": {"name": "m"},
        "spec": {"predictor": {"name": "v1"}, "canary": [canary]},
    }
    route = {"metadata": {"name": "m"}, "spec": {"rules": [{"backendRefs": []}]}}
    found = replace(WELL, kserve="0.21.0", canaries=((service, route),))
    (wrong,) = _wrong(found, WHERE.model_copy(update={"mode": "standard"}))
    assert "not to m-v1-predictor, m-v2-predictor" in wrong.found


@pytest.mark.parametrize(
    ("kinds", "mode", "chosen"),
    [
        ({"InferenceService": ("v1beta1",), "LLMInferenceService": ("v1alpha2",)}, "auto", "route"),
        ({"LLMInferenceService": ("v1alpha2",)}, "auto", "llmisvc"),
        ({}, "auto", "route"),
        ({"InferenceService": ("v1beta1",)}, "llmisvc", "llmisvc"),
    ],
)
def test_route_is_preferred_unless_told_otherwise(kinds: Any, mode: Any, chosen: str) -> None:
    where = WHERE.model_copy(update={"mode": mode})
    assert mechanism(replace(WELL, kinds=kinds), where) == chosen


def test_the_gateway_is_the_specs_then_kserves_then_the_default() -> None:
    named = KServe.model_validate({"gateway": "a/b", "address": "https://models.example"})
    assert gateway_of(named, {"kserveIngressGateway": "c/d"}) == ("a", "b")
    assert gateway_of(WHERE, {"kserveIngressGateway": "c/d"}) == ("c", "d")
    assert gateway_of(WHERE, {}) == ("kserve", "kserve-ingress-gateway")
    assert address_of(WELL, named) == "https://models.example"
    assert address_of(WELL, WHERE) == "http://10.0.0.9"
    assert address_of(replace(WELL, gateway=None), WHERE) == ""


def test_the_objects_depend_on_what_was_found() -> None:
    told = {"images": "ghcr.io/org", "runtime_class": "nvidia", "drain_s": 600}
    facts = facts_of(WELL, KServe.model_validate(told), Storage(secret="s"))
    assert facts.drain_s == 600
    assert facts.gateway == Gateway(domain="models.example")
    assert facts.image("x") == f"ghcr.io/org/x:{facts.version}"
    assert (facts.runtime_class, facts.storage.secret) == ("nvidia", "s")


def test_a_replica_over_nodes_wants_groups_and_the_mode_that_has_them() -> None:
    hardware = {"accelerator": "nvidia-h100-80gb", "count": 16, "nodes": 2}
    two = SPEC.model_copy(update={"hardware": Hardware.model_validate(hardware)})
    grouped = KServe.model_validate({"namespace": "models", "mode": "llmisvc"})
    eight = (Offer("nvidia.com/gpu", "NVIDIA-H100-80GB-HBM3", 81559, count=8),)
    without = replace(
        WELL, kinds={**WELL.kinds, "LLMInferenceService": ("v1alpha2",)}, offers=eight
    )
    groups = replace(without, kinds={**without.kinds, "LeaderWorkerSet": ("v1",)})

    (mode,) = [each for each in _wrong(groups, spec=two) if each.name == "nodes per replica"]
    assert mode.hint == "set target.kserve.mode: llmisvc"
    (kind,) = _wrong(without, grouped, two)
    assert "no LeaderWorkerSet" in kind.found
    assert _wrong(groups, grouped, two) == []

    four = replace(groups, offers=(replace(eight[0], count=4),))
    (devices,) = _wrong(four, grouped, two)
    assert devices.hint == "set hardware.count: 8, or hardware.nodes: 4, in mode llmisvc"
