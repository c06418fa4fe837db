"""Knative mode: what is written in which order, and who gets which share of it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from penstock.core.errors import NotReady
from serving.cluster import Object
from serving.kserve import knative
from serving.manifests import VERSION
from tests.fakes.knative import Knative
from tests.unit.serving.kserve.definitions import mistakes
from tests.unit.serving.kserve.objects import FACTS, ROOT, gpu, release, spec


def made(version: int, **fields: Any) -> Object:
    """Return the InferenceService of a name with one version, at a place of its own."""
    place = f"s3://models/v{version}/{ROOT.hex}"
    return knative.inference_service(spec(**fields), release(version, place), FACTS)


class Stage:
    """A name that is served, and a Knative that follows what is written."""

    def __init__(self) -> None:
        self.knative = Knative(json.loads(json.dumps(made(1))))
        self.knative.ready()

    def write(self, obj: Object) -> Object:
        self.knative.write(obj)
        return self.obj

    @property
    def obj(self) -> Object:
        return self.knative.obj

    def candidate(self, version: int) -> Object:
        return self.write(knative.with_candidate(self.obj, knative.snapshot(made(version))))


def test_one_version_is_as_the_definition_demands_and_knative_allows() -> None:
    obj = made(1)
    assert mistakes(obj) == []
    predictor = obj["spec"]["predictor"]
    assert "terminationGracePeriodSeconds" not in predictor
    assert "lifecycle" not in predictor["model"]
    assert obj["metadata"]["annotations"]["serving.kserve.io/deploymentMode"] == "Knative"
    assert "serving.kserve.io/autoscalerClass" not in obj["metadata"]["annotations"]


def test_a_candidate_begins_at_nothing_ramps_when_ready_and_is_promoted() -> None:
    stage = Stage()
    assert knative.observed(stage.obj) == {"chat-00001": 100}
    stage.candidate(2)
    assert knative.observed(stage.obj) == {"chat-00001": 100}
    with pytest.raises(NotReady, match="10 % would go to chat-00001"):
        knative.with_weight(stage.obj, 10)
    stage.knative.ready()
    assert knative.observed(stage.obj) == {"chat-00001": 100, "chat-00002": 0}
    assert knative.door_of(stage.obj) == "http://latest-chat"
    stage.write(knative.with_weight(stage.obj, 10))
    assert knative.observed(stage.obj) == {"chat-00001": 90, "chat-00002": 10}
    before = stage.knative.revisions
    stage.write(knative.promoted(stage.obj))
    assert knative.observed(stage.obj) == {"chat-00002": 100}
    assert stage.knative.revisions == before, "the pods that were judged go on"


def test_after_a_roll_back_the_next_candidate_does_not_feed_the_refused_one() -> None:
    stage = Stage()
    stage.candidate(2)
    stage.knative.ready()
    stage.write(knative.with_weight(stage.obj, 25))
    stage.write(knative.rolled_back(stage.obj))
    assert knative.observed(stage.obj)["chat-00002"] == 0
    stage.candidate(3)
    with pytest.raises(NotReady, match="would go to chat-00002"):
        knative.with_weight(stage.obj, 5)  # kserve#2130
    naive = {**stage.obj["spec"]["predictor"], "canaryTrafficPercent": 5}
    stage.write({**stage.obj, "spec": {"predictor": naive}})
    assert knative.observed(stage.obj)["chat-00002"] == 5, "what with_weight prevents"
    stage.write(knative.rolled_back(stage.obj))
    stage.knative.ready()
    stage.write(knative.with_weight(stage.obj, 5))
    assert knative.observed(stage.obj) == {"chat-00001": 95, "chat-00003": 5}


def test_what_was_promoted_is_left_again_by_one_write() -> None:
    stage = Stage()
    stage.candidate(2)
    stage.knative.ready()
    stage.write(knative.promoted(stage.obj))
    stage.write(knative.rolled_back(stage.obj))
    shares = {name: share for name, share in knative.observed(stage.obj).items() if share}
    assert shares == {"chat-00001": 100}


def test_a_status_of_before_the_write_tells_nothing() -> None:
    stage = Stage()
    stage.candidate(2)
    stage.knative.ready()
    assert knative.candidate_ready(stage.obj)
    stage.write(knative.rolled_back(stage.obj))
    third = knative.with_candidate(stage.obj, knative.snapshot(made(3)))
    assert third["status"] == stage.obj["status"], "nobody has looked at it yet"
    assert not knative.candidate_ready(third)


def test_what_knative_does_not_allow_is_named_with_its_fix() -> None:
    allowed = {
        "kubernetes.podspec-init-containers": "enabled",
        "kubernetes.podspec-securitycontext": "Enabled",
    }
    assert all(check.ok for check in knative.features(made(1), allowed))
    wrong = [check for check in knative.features(made(1), {}) if not check.ok]
    assert [check.name for check in wrong] == ["knative initContainers", "knative securityContext"]
    assert "kubernetes.podspec-init-containers" in wrong[0].hint
    chosen = knative.inference_service(gpu(1), release(1), FACTS)
    assert {c.name for c in knative.features(chosen, allowed) if not c.ok} <= {
        "knative tolerations",
        "knative affinity",
        "knative nodeSelector",
    }


def test_a_version_is_told_by_its_label() -> None:
    assert made(7)["spec"]["predictor"]["labels"] == {VERSION: "7"}
