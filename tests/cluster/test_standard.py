"""`spec.canary[]` on real KServe: what its webhooks admit, what it makes, what it leaves out."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from penstock.core.checks import refuse
from penstock.core.errors import ConfigurationError, Conflict
from penstock.core.spec import KServe
from serving.cluster import Object
from serving.kserve import standard
from serving.kube.errors import Refused
from serving.manifests import ready
from serving.targets.checks import SPLITS_CANARY, checks
from serving.targets.probe import look
from tests.cluster.stage import NAME, POLICY, Stage
from tests.cluster.waiting import until

pytestmark = [pytest.mark.cluster, pytest.mark.enable_socket]

PATIENT = POLICY.model_copy(update={"ready_timeout_s": 300.0})
"""How long a pod takes to start is no matter here."""


@pytest.fixture
def stage(cluster: Any, namespace: str, tmp_path: Path) -> Stage:
    made = Stage(namespace, tmp_path, policy=PATIENT, cpu="400m")
    made.prepare()
    return made


def _one(stage: Stage, version: int) -> Object:
    """Return the InferenceService with one version, whose weights are its own."""
    release = stage.release(version, seed=version)
    return standard.inference_service(stage.spec(), release, stage.target.facts, release.manifest)


def _candidate(stage: Stage, obj: Object) -> Object:
    return standard.with_candidate(obj, standard.snapshot(_one(stage, 2)))


def test_a_candidate_is_admitted_and_what_kserve_forbids_is_refused(stage: Stage) -> None:
    cluster, one = stage.target.cluster, _one(stage, 1)
    good = standard.with_weight(_candidate(stage, one), 10)
    made = cluster.create(good, dry_run=True)
    assert standard.weights_of(made) == {"v1": 90, "v2": 10}

    def refused(why: str, change: Callable[[Object], None]) -> None:
        wrong = deepcopy(good)
        change(wrong)
        with pytest.raises(Refused, match=why):
            cluster.create(wrong, dry_run=True)

    def too_much(obj: Object) -> None:
        (canary,) = obj["spec"]["canary"]
        other = deepcopy(canary)
        other["predictor"]["name"] = "v3"
        obj["spec"]["canary"] = [{**canary, "trafficPercent": 60}, {**other, "trafficPercent": 60}]

    refused("sum of canary trafficPercent", too_much)
    refused("maxReplicas", lambda obj: obj["spec"]["canary"][0]["predictor"].update(maxReplicas=2))


def test_a_name_alone_is_not_promoted(stage: Stage) -> None:
    stage.target.cluster.create(_one(stage, 1))

    def renamed(obj: Object) -> Object:
        predictor = {**obj["spec"]["predictor"], "name": "v2"}
        return {**obj, "spec": {**obj["spec"], "predictor": predictor}}

    with pytest.raises(Refused, match="requires a model change"):
        _change(stage, renamed, dry_run=True)

    def promoted(obj: Object) -> Object:
        return standard.promoted(standard.with_weight(_candidate(stage, obj), 100))

    assert standard.weights_of(_change(stage, promoted, dry_run=True)) == {"v2": 100}


def test_a_split_that_kserve_does_not_make_is_noticed_and_refused(stage: Stage) -> None:
    cluster = stage.target.cluster
    cluster.create(_one(stage, 1))
    until("the stable version", lambda: ready(_get(stage))[0], 300)
    _change(stage, lambda obj: _candidate(stage, obj))
    until("the candidate", lambda: standard.candidate_ready(_get(stage)), 300)
    _change(stage, lambda obj: standard.with_weight(obj, 10))
    until("KServe to see the share", lambda: _seen_share(stage) == 10)
    check = standard.split(_get(stage), _route(stage))
    version = stage.target.found.kserve or "0.20"  # the test cluster's has no Deployment to tell
    assert check.ok == (tuple(map(int, version.split(".")[:2])) >= SPLITS_CANARY), check
    if not check.ok:
        where = KServe.model_validate({**stage.kserve, "mode": "standard"})
        found = checks(look(cluster, where), where)
        with pytest.raises(ConfigurationError, match="not to m-v2-predictor") as refused:
            refuse(each for each in found if "split" in each.name)
        assert "mode route" in refused.value.hint

    before = _pods(stage, "2")
    _change(stage, lambda obj: standard.promoted(standard.with_weight(obj, 100)))
    until("the old version to go", lambda: cluster.get("Deployment", "m-v1-predictor") is None)
    until("the new version", lambda: ready(_get(stage))[0])
    assert before
    assert _pods(stage, "2") >= before, "no pod was restarted"
    until("the route to follow", lambda: standard.split(_get(stage), _route(stage)).ok)


def _get(stage: Stage) -> Object:
    found = stage.target.cluster.get("InferenceService", NAME)
    assert found is not None
    return found


def _route(stage: Stage) -> Object:
    found = stage.target.cluster.get("HTTPRoute", NAME)
    assert found is not None, "KServe makes it: ingress.enableGatewayApi"
    return found


def _seen_share(stage: Stage) -> int:
    (status,) = _get(stage)["status"]["canaryStatuses"]
    return int(status["trafficPercent"])


def _pods(stage: Stage, version: str) -> set[str]:
    """Return the pods of a version by what tells one from its successor."""
    return {
        pod["metadata"]["uid"]
        for pod in stage.target.cluster.list("Pod")
        if pod["metadata"].get("labels", {}).get("penstock.dev/version") == version
    }


def _change(stage: Stage, change: Callable[[Object], Object], *, dry_run: bool = False) -> Object:
    """Write a change over whatever KServe's controller wrote meanwhile."""
    for _ in range(10):
        try:
            return stage.target.cluster.replace(change(_get(stage)), dry_run=dry_run)
        except Conflict:
            continue
    raise AssertionError("KServe writes all the time")
