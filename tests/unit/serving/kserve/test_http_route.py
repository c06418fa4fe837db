"""Who gets which share, and when a gateway is believed to give it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.cluster import Object
from serving.headers import SERVICE
from serving.kserve import llm_inference_service as llm
from serving.kserve.facts import Gateway
from serving.kserve.http_route import (
    http_route,
    observed,
    unobserved,
    weights_of,
    with_weights,
)
from tests.unit.serving.kserve.objects import FACTS, release, spec

WEIGHTS = st.dictionaries(
    st.integers(1, 999).map(lambda n: f"chat-v{n}"), st.integers(0, 100), min_size=1, max_size=5
)


def seen(route: Object, **conditions: Any) -> Object:
    """Return a route as our gateway's controller has seen it at generation 7."""
    body = {"status": "True", "observedGeneration": 7, **conditions}
    parent = {
        "parentRef": {"name": "kserve-ingress-gateway", "namespace": "kserve"},
        "conditions": [{"type": kind, **body} for kind in ("Accepted", "ResolvedRefs")],
    }
    route = {**route, "metadata": {**route["metadata"], "generation": 7}}
    return {**route, "status": {"parents": [parent]}}


@given(WEIGHTS)
def test_weights_are_read_back_as_written(weights: dict[str, int]) -> None:
    assert weights_of(http_route("chat", weights, FACTS)) == weights
    other = http_route("chat", {"chat-v0": 1}, FACTS)
    assert with_weights(other, weights) == http_route("chat", weights, FACTS)


def test_a_candidate_without_a_share_is_listed_and_can_be_named() -> None:
    route = http_route("chat", {"chat-v1": 100, "chat-v2": 0}, FACTS)
    shared, *named = route["spec"]["rules"]
    assert [ref["weight"] for ref in shared["backendRefs"]] == [100, 0]
    assert {rule["matches"][0]["headers"][0]["name"] for rule in named} == {SERVICE}
    by_name = {
        rule["matches"][0]["headers"][0]["value"]: [ref["name"] for ref in rule["backendRefs"]]
        for rule in named
    }
    assert by_name == {"chat-v1": ["chat-v1-predictor"], "chat-v2": ["chat-v2-predictor"]}
    assert all(ref["weight"] for rule in named for ref in rule["backendRefs"])


def test_a_long_stream_is_not_cut() -> None:
    route = http_route("chat", {"chat-v1": 100, "chat-v2": 0}, FACTS)
    assert {rule["timeouts"]["request"] for rule in route["spec"]["rules"]} == {"0s"}


def test_shares_hold_once_our_gateway_has_seen_this_generation() -> None:
    route = http_route("chat", {"chat-v1": 90, "chat-v2": 10}, FACTS)
    assert observed(seen(route), FACTS) == {"chat-v1": 90, "chat-v2": 10}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"observedGeneration": 6}, "of generation 6, not 7"),
        (
            {"status": "False", "reason": "BackendNotFound", "message": "no such Service"},
            "BackendNotFound: no such Service",
        ),
    ],
)
def test_shares_do_not_hold_while_the_gateway_says_otherwise(
    change: dict[str, Any], said: str
) -> None:
    route = seen(http_route("chat", {"chat-v1": 100}, FACTS), **change)
    assert observed(route, FACTS) == {}
    assert said in unobserved(route, FACTS)


def test_shares_do_not_hold_when_nobody_or_another_gateway_has_looked() -> None:
    route = http_route("chat", {"chat-v1": 100}, FACTS)
    assert "has not looked" in unobserved(route, FACTS)
    other = seen(route)
    other["status"]["parents"][0]["parentRef"] = {"name": "other", "namespace": "kserve"}
    assert observed(other, FACTS) == {}
    silent = seen(route)
    silent["status"]["parents"][0]["conditions"] = []
    assert unobserved(silent, FACTS) == "Accepted: not said yet; ResolvedRefs: not said yet"


def member(service: str, weights: dict[str, int]) -> Object:
    """Return a member's route as KServe's controller writes it, with our gateway's word."""
    shared = [
        {"kind": "Service", "name": f"{name}-kserve-workload-svc", "port": 8000, "weight": weight}
        for name, weight in weights.items()
    ]
    path = {"type": "PathPrefix", "value": f"/models/{service}/v1/chat/completions"}
    own = {"matches": [{"path": path}], "backendRefs": [{**shared[0], "weight": 1}]}
    publisher = {"path": {"type": "PathPrefix", "value": "/publishers/models/models/chat"}}
    route = {
        "kind": "HTTPRoute",
        "metadata": {"name": llm.route_name(service), "namespace": "models"},
        "spec": {"rules": [own, {"matches": [publisher], "backendRefs": shared}]},
    }
    return seen(route)


def test_a_groups_shares_hold_when_our_route_and_every_members_show_them() -> None:
    new, old = {"chat-v1": 90, "chat-v2": 10}, {"chat-v1": 100}
    ours = seen(llm.http_route("chat", new, FACTS))
    assert llm.shown(member("chat-v2", new)) == new
    assert llm.observed(ours, [member("chat-v1", new), member("chat-v2", new)], FACTS) == new
    assert llm.observed(ours, [member("chat-v1", old), member("chat-v2", new)], FACTS) == {}
    unseen = {**member("chat-v1", new), "status": {}}
    assert llm.observed(ours, [unseen, member("chat-v2", new)], FACTS) == {}
    early = {**ours, "status": {}}
    assert llm.observed(early, [member("chat-v1", new), member("chat-v2", new)], FACTS) == {}


def test_members_routes_are_at_kserves_gateway_wherever_users_come_in() -> None:
    edge = replace(FACTS, gateway=Gateway("edge", "public"))
    weights = {"chat-v1": 90, "chat-v2": 10}
    ours = seen(llm.http_route("chat", weights, edge))
    ours["status"]["parents"][0]["parentRef"] = {"name": "edge", "namespace": "public"}
    theirs = [member(name, weights) for name in weights]
    assert llm.observed(ours, theirs, edge) == weights
    assert llm.observed(ours, theirs, FACTS) == {}, "ours is not at that gateway"


def test_a_member_without_a_share_may_stand_in_a_route_or_not() -> None:
    ours = seen(llm.http_route("chat", {"chat-v1": 0, "chat-v2": 100}, FACTS))
    for theirs in ({"chat-v1": 0, "chat-v2": 100}, {"chat-v2": 100}):
        assert llm.observed(ours, [member("chat-v2", theirs)], FACTS) == llm.weights_of(ours)


def test_a_members_weight_is_all_that_changes() -> None:
    obj = llm.llm_inference_service(spec(), release(), 10, FACTS)
    raised = llm.with_weight(obj, 25)
    assert (llm.weight_of(obj), llm.weight_of(raised)) == (10, 25)
    assert llm.with_weight(raised, 10) == obj


@pytest.mark.parametrize("make", [http_route, llm.http_route])
def test_users_rules_keep_their_places_whoever_comes_and_goes(make: Any) -> None:
    """Envoy Gateway names clusters by a rule's place: see `http_route.rules`."""
    lives = [{"chat-v1": 100}, {"chat-v1": 100, "chat-v2": 0}, {"chat-v1": 0, "chat-v2": 100}]
    places = [
        [
            (place, rule["matches"], rule.get("filters"))
            for place, rule in enumerate(make("chat", weights, FACTS)["spec"]["rules"])
            if "headers" not in rule["matches"][0]
        ]
        for weights in [*lives, {"chat-v2": 100}]
    ]
    assert places[0][0][0] == 0
    assert all(each == places[0] for each in places)


@given(WEIGHTS)
def test_a_groups_weights_are_read_back_as_written(weights: dict[str, int]) -> None:
    route = llm.http_route("chat", weights, FACTS)
    assert llm.weights_of(route) == weights
    assert llm.with_weights(llm.http_route("chat", {"chat-v0": 1}, FACTS), weights, FACTS) == route


def test_users_of_a_group_are_led_by_exact_paths_which_win_over_kserves_prefixes() -> None:
    route = llm.http_route("chat", {"chat-v1": 90, "chat-v2": 10}, FACTS)
    assert "hostnames" not in route["spec"], (
        "KServe's routes have none: one with a host would differ"
    )
    chat, *_ = route["spec"]["rules"]
    assert chat["matches"] == [
        {"path": {"type": "Exact", "value": "/publishers/models/models/chat/v1/chat/completions"}}
    ]
    assert chat["filters"][0]["urlRewrite"]["path"]["replaceFullPath"] == "/v1/chat/completions"
    assert [(ref["name"], ref["port"], ref["weight"]) for ref in chat["backendRefs"]] == [
        ("chat-v1-kserve-workload-svc", 8000, 90),
        ("chat-v2-kserve-workload-svc", 8000, 10),
    ]
    assert len(route["spec"]["rules"]) <= 16, "what an HTTPRoute may have"


def test_paths_that_do_not_agree_have_no_shares() -> None:
    route = llm.http_route("chat", {"chat-v1": 90, "chat-v2": 10}, FACTS)
    route["spec"]["rules"][1]["backendRefs"] = route["spec"]["rules"][1]["backendRefs"][:1]
    assert llm.weights_of(route) == {}
