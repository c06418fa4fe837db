"""`penstock status` of a cluster: what is served there, for people."""

from __future__ import annotations

from typing import Any, cast

from penstock.cli import cluster_view as view
from penstock.core.spec import Rollout
from serving import controller as acting
from serving.controller import FileLog
from serving.doors import Door
from serving.kserve.facts import Facts
from serving.kserve.traffic import RouteTraffic
from serving.manifests import NAME
from serving.rollout.record import first_record
from serving.targets.kserve import ClusterTarget
from tests.fakes.cluster import MemoryCluster
from tests.unit.serving.kserve.objects import release, spec


class Place:
    """A namespace whose gateway has not accepted the newest weights, and whose candidate starts."""

    def __init__(self) -> None:
        self.cluster, self.traffic = MemoryCluster(), RouteTraffic(Facts("models"))

    def observed(self, _name: str) -> dict[str, int]:
        return {}

    def door(self, name: str) -> Door:
        return Door("http://gateway", {"Host": f"{name}.example.com"})

    def why(self, service: str) -> str:
        return f"{service} has no image"

    def pods(self, service: str) -> list[Any]:
        status = {"conditions": [{"type": "Ready", "status": "False"}]}
        return [{"metadata": {"name": f"{service}-pod"}, "spec": {}, "status": status}]


def _shown(place: Place) -> list[str]:
    return list(view.lines(view.read(cast(ClusterTarget, place))))


def test_a_candidate_and_its_rollout_are_shown(tmp_path: Any) -> None:
    place, policy = Place(), Rollout()
    assert _shown(place) == ["nothing is served there; next: penstock run model.yaml"]
    place.cluster.create(place.traffic.carrying("chat", {"chat-v1": 100}))
    first = first_record("chat-v2", "chat-v1", policy, 1000.0)
    acting.begin(place.cluster, FileLog(tmp_path), "chat", first, policy, traffic=place.traffic)
    place.cluster.create(place.traffic.version(spec(), release(2)))
    assert _shown(place) == [
        "chat  http://gateway  Host: chat.example.com",
        f"  {'chat-v2':<24} {'not in the route':<28} not ready: chat-v2 has no image",
        "    chat-v2-pod  not ready, 0 restarts, on -",
        f"  rollout: deploying, chat-v2 against chat-v1: {first.reason}",
    ]


def test_what_is_no_version_of_ours_is_left_out() -> None:
    place = Place()
    for name, labels in {"other": {}, "whole": {NAME: "whole"}}.items():
        body = {"kind": "InferenceService", "metadata": {"name": name, "labels": labels}}
        place.cluster.create({**body, "spec": {}})
    assert _shown(place) == ["nothing is served there; next: penstock run model.yaml"]
