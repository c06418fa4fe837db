"""Others' InferenceServices: adopted, rolled out against, and given back, while users ask."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from penstock.cli.users import Users
from serving.cluster import Object
from serving.completer import Message
from serving.kserve import http_route
from serving.manifests import ready
from tests.cluster.served import kubectl, penstock
from tests.cluster.stage import NAME, PATIENT, Stage
from tests.cluster.waiting import until

pytestmark = [pytest.mark.cluster, pytest.mark.wider, pytest.mark.enable_socket]

OLD = "old"
RPS = 10.0
_START_S = 300.0
_QUESTIONS = [[Message(role="user", content=f"what is {number}?")] for number in range(100)]
_LOCAL = "networking.kserve.io/visibility"


@pytest.fixture
def stage(cluster: Any, namespace: str, tmp_path: Path) -> Stage:
    made = Stage(namespace, tmp_path, policy=PATIENT, cpu="400m")
    made.prepare()
    return made


def test_it_is_adopted_rolled_out_against_and_given_back(stage: Stage) -> None:
    _serve_as_others(stage, OLD)
    with _users(stage, OLD) as users:
        pods = _pods(stage, OLD)
        _done(stage, "adopt", OLD)
        assert stage.target.observed(NAME) == {OLD: 100}
        _more(users)
        assert _pods(stage, OLD) == pods, "no pod was restarted"
        with stage.driven():
            stage.begin(1)
            record = stage.until(lambda r: r.over)
            assert record.phase == "promoted", (record.reason, stage.logs())
            assert stage.gone(OLD)
        until("KServe's route to go", lambda: _route(stage, OLD) is None)
        _more(users)
        _done(stage, "leave", NAME)
        assert _route(stage, NAME) is None, "Penstock's route goes last"
        until("pods without marks", lambda: _unmarked(stage), _START_S)
        _more(users)
        assert _ours(stage) == []
    assert users.failures == []
    assert users.asked > 100


def test_adopting_and_leaving_changes_nothing(stage: Stage) -> None:
    _serve_as_others(stage, OLD)
    with _users(stage, OLD) as users:
        before, pods = _spec(stage, OLD), _pods(stage, OLD)
        _done(stage, "adopt", OLD)
        _done(stage, "adopt", OLD)
        _more(users)
        _done(stage, "leave", NAME)
        _more(users)
        assert (_spec(stage, OLD), _pods(stage, OLD)) == (before, pods)
        assert _route(stage, NAME) is None
        assert _ours(stage) == []
    assert users.failures == []


def test_one_that_is_called_as_the_model_is_taken_over_in_place(stage: Stage) -> None:
    _serve_as_others(stage, NAME)
    code, said = _call(stage, "adopt", NAME)
    assert (code, "cluster-local" in said) == (2, True)
    with _users(stage, NAME) as users:
        kubectl(stage, "label", "isvc", NAME, f"{_LOCAL}=cluster-local")
        until("pods that KServe replaced", lambda: _labelled(stage), _START_S)
        pods = _pods(stage, NAME)
        _done(stage, "adopt", NAME)
        _more(users)
        assert "ownerReferences" not in (_route(stage, NAME) or {})["metadata"]
        _done(stage, "leave", NAME)
        _more(users)
        assert _pods(stage, NAME) == pods
        assert _route(stage, NAME) is None
        assert _ours(stage) == []
    assert users.failures == []


def _serve_as_others(stage: Stage, name: str) -> None:
    """Serve the model as a person does who knows nothing of Penstock: KServe makes the routes."""
    cluster, traffic = stage.target.cluster, stage.target.traffic
    ours = traffic.version(stage.spec(), stage.release(1))
    marks = {
        part: {
            key: text
            for key, text in ours["metadata"][part].items()
            if not key.startswith("penstock.dev/") and key != _LOCAL
        }
        for part in ("labels", "annotations")
    }
    cluster.create({**ours, "metadata": {**marks, "name": name, "namespace": stage.namespace}})
    until(f"{name} to serve", lambda: ready(_spec_of(stage, name))[0], _START_S)
    until("KServe's route", lambda: _unaccepted(stage, name) == "")


@contextmanager
def _users(stage: Stage, service: str) -> Iterator[Users]:
    """Ask by the host that KServe gave an InferenceService, once it answers."""
    host, *_ = stage.target.facts.gateway.hostnames(service, stage.namespace)
    url = stage.target.door(NAME).url
    until("an answer", lambda: _answers(url, host), _START_S)
    asked = Users(url, NAME, _QUESTIONS, rps=RPS, seed=7, headers={"Host": host})
    with asked.asking():
        yield asked


def _answers(url: str, host: str) -> bool:
    try:
        found = httpx.get(f"{url}/v1/models", headers={"Host": host}, trust_env=False, timeout=10)
    except httpx.HTTPError:
        return False
    return found.is_success


def _more(users: Users) -> None:
    """Wait for users who ask with everything as it is now."""
    asked = users.asked
    until("more users", lambda: users.asked > asked + 3 * RPS)


def _done(stage: Stage, *words: str) -> None:
    code, said = _call(stage, *words)
    assert code == 0, said


def _call(stage: Stage, *words: str) -> tuple[int, str]:
    home = str(stage.settings.home)
    return penstock(*words, "--namespace", stage.namespace, PENSTOCK_HOME=home)


def _spec_of(stage: Stage, name: str) -> Object:
    found = stage.target.cluster.get("InferenceService", name)
    assert found is not None
    return found


def _spec(stage: Stage, name: str) -> tuple[Any, Any, Any]:
    obj = _spec_of(stage, name)
    metadata = obj["metadata"]
    return metadata.get("labels"), metadata.get("annotations"), obj["spec"]


def _route(stage: Stage, name: str) -> Object | None:
    return stage.target.cluster.get("HTTPRoute", name)


def _unaccepted(stage: Stage, name: str) -> str:
    route = _route(stage, name)
    return "none yet" if route is None else http_route.unobserved(route, stage.target.facts)


def _pods(stage: Stage, service: str) -> set[str]:
    """Return the pods of an InferenceService by what tells one from its successor."""
    return {
        pod["metadata"]["uid"]
        for pod in _running(stage)
        if pod["metadata"]["labels"].get("serving.kserve.io/inferenceservice") == service
    }


def _running(stage: Stage) -> list[Object]:
    every = stage.target.cluster.list("Pod")
    return [pod for pod in every if "deletionTimestamp" not in pod["metadata"]]


def _unmarked(stage: Stage) -> bool:
    """Return whether KServe has replaced every pod that had a mark of Penstock."""
    marks = [key for pod in _running(stage) for key in pod["metadata"].get("labels", {})]
    return bool(marks) and not [key for key in marks if key.startswith("penstock.dev/")]


def _labelled(stage: Stage) -> bool:
    """Return whether every pod is one that KServe made after the InferenceService was labelled."""
    found = [pod["metadata"].get("labels", {}) for pod in _running(stage)]
    return bool(found) and all(labels.get(_LOCAL) == "cluster-local" for labels in found)


def _ours(stage: Stage) -> list[str]:
    """Return what has a mark of Penstock, apart from the runtime that a person installed."""
    cluster, found = stage.target.cluster, []
    for kind in ("InferenceService", "HTTPRoute", "ConfigMap", "Lease"):
        for obj in cluster.list(kind):
            metadata = obj["metadata"]
            words = [*metadata.get("labels", {}), *metadata.get("annotations", {})]
            if any(word.startswith("penstock.dev/") for word in words) or kind == "Lease":
                found.append(f"{kind} {metadata['name']}")
    return found
