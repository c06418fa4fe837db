"""Where Git, cluster and registry disagree, by field; and what is no disagreement."""

from __future__ import annotations

import copy

import pytest

from serving.cluster import Object
from serving.gitops.drift import of_aliases, of_objects
from serving.kserve.http_route import http_route, with_weights
from serving.manifests import NAME
from tests.unit.serving.kserve.objects import FACTS

GIT = http_route("chat", {"chat-v1": 90, "chat-v2": 10}, FACTS)


def _told(git: list[Object], cluster: list[Object]) -> list[str]:
    return [str(finding) for finding in of_objects(git, cluster)]


def _served(obj: Object) -> Object:
    """Return an object as a server gives it: with bookkeeping, defaults and a status."""
    served = copy.deepcopy(obj)
    served["metadata"] |= {"uid": "1", "resourceVersion": "7", "managedFields": [{}]}
    served["metadata"]["annotations"] = {"penstock.dev/rollout": "{}"}
    served["spec"]["parentRefs"][0]["port"] = 80
    return {**served, "status": {"parents": []}}


def test_what_a_server_adds_is_no_difference() -> None:
    assert _told([GIT], [_served(GIT)]) == []


def test_weights_that_differ_are_told_by_field() -> None:
    other = with_weights(_served(GIT), {"chat-v1": 50, "chat-v2": 50})
    assert _told([GIT], [other]) == [
        "HTTPRoute/chat spec.rules[0].backendRefs[0].weight: Git 90, cluster 50",
        "HTTPRoute/chat spec.rules[0].backendRefs[1].weight: Git 10, cluster 50",
    ]


def test_a_version_that_left_the_route_is_one_difference_per_rule() -> None:
    other = with_weights(_served(GIT), {"chat-v2": 100})
    assert _told([GIT], [other]) == ["HTTPRoute/chat spec.rules: Git 3 entries, cluster 2 entries"]


def test_missing_and_extra_objects_are_told_and_those_of_others_are_not() -> None:
    ours = {"kind": "InferenceService", "metadata": {"name": "chat-v3", "labels": {NAME: "chat"}}}
    made = {
        "kind": "HTTPRoute",
        "metadata": {"name": "made", "labels": {NAME: "chat"}, "ownerReferences": [{}]},
    }
    theirs: Object = {"kind": "InferenceService", "metadata": {"name": "other"}}
    assert _told([GIT], [ours, made, theirs]) == [
        "HTTPRoute/chat: in Git, not on the cluster",
        "InferenceService/chat-v3: on the cluster, not in Git",
    ]


@pytest.mark.parametrize(
    ("git", "cluster"),
    [
        ("0.5", "500m"),
        ("1024Mi", "1Gi"),
        ("2", "2000m"),
        ("1M", "1000k"),
        (0, None),
        ([], None),
        ("", None),
        (False, None),
    ],
)
def test_the_same_in_another_spelling_is_no_difference(git: object, cluster: object) -> None:
    def obj(value: object) -> Object:
        return {"kind": "K", "metadata": {"name": "n"}, "spec": {"field": value}}

    assert _told([obj(git)], [obj(cluster)]) == []


@pytest.mark.parametrize(
    ("git", "cluster"), [("1Gi", "1G"), ("500m", "501m"), (1, None), ("a", "b")]
)
def test_another_amount_is_a_difference(git: object, cluster: object) -> None:
    one: Object = {"kind": "K", "metadata": {"name": "n"}, "spec": {"field": git}}
    (found,) = of_objects([one], [{**one, "spec": {"field": cluster}}])
    assert (found.what, found.path) == ("differs", "spec.field")


def test_a_champion_without_the_traffic_is_told() -> None:
    serving = {"chat": "chat-v2", "same": "same-v1", "none": "none-v1", "adopted": "old"}
    champions = {"chat": 1, "same": 1, "none": None, "adopted": None}
    assert [str(each) for each in of_aliases(serving, champions)] == [
        "registry chat: chat-v2 has the traffic, champion is chat-v1",
        "registry none: none-v1 has the traffic, champion is no version",
    ]
