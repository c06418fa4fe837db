"""What ships in deploy/, applied as docs/how-to/install-on-a-cluster.md says."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from serving import controller as acting
from serving.kserve.facts import Facts, Gateway
from serving.kserve.http_route import http_route
from serving.kube import KubernetesCluster, connect
from serving.kube.errors import Refused
from serving.rollout.record import OVER, Phase
from tests.cluster.conftest import Running
from tests.cluster.places import REPOSITORY
from tests.cluster.served import kubectl
from tests.cluster.stage import PATIENT, Stage
from tests.cluster.waiting import until

pytestmark = [pytest.mark.cluster, pytest.mark.alone, pytest.mark.enable_socket]

_DEPLOY = REPOSITORY / "deploy"


def overlay(folder: Path, part: str, **more: Any) -> str:
    """Write a kustomization of one's own over a part of deploy/; return its folder."""
    folder.mkdir()
    body = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [os.path.relpath(_DEPLOY / part, folder.resolve())],
        **more,
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(body))
    return str(folder)


def applied(*words: str) -> None:
    """Run kubectl; what it says on the way out is shown where it fails."""
    subprocess.run(["kubectl", *words], check=True, timeout=120)


@pytest.fixture
def policy(cluster: Running, namespace: str, tmp_path: Path) -> Iterator[None]:
    """The policy, for this namespace only: others on this cluster may try what it refuses."""
    selector = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}}
    patch = [{"op": "add", "path": "/spec/matchResources", "value": selector}]
    target = {"kind": "ValidatingAdmissionPolicyBinding"}
    folder = overlay(
        tmp_path / "admission",
        "admission",
        nameSuffix=f"-{namespace}",
        patches=[{"target": target, "patch": json.dumps(patch)}],
    )
    applied("apply", "-k", folder)
    yield
    applied("delete", "-k", folder)


@pytest.fixture
def installed(cluster: Running, namespace: str, tmp_path: Path, policy: None) -> Iterator[Stage]:
    """A namespace with the runtimes and the controller, which runs."""
    stage = Stage(namespace, tmp_path, policy=PATIENT, cpu="400m")
    stage.prepare(runtime=False)
    kubectl(stage, "apply", "-k", str(_DEPLOY / "runtimes"))
    folder = overlay(
        tmp_path / "controller",
        "controller",
        namespace=namespace,
        nameSuffix=f"-{namespace}",
        images=[
            {
                "name": "penstock-controller-python",
                "newName": f"{cluster.registry}/penstock-controller-python",
            }
        ],
    )
    applied("apply", "-k", folder)
    deployment = f"deployment/penstock-controller-{namespace}"
    kubectl(stage, "rollout", "status", deployment, "--timeout=240s")
    yield stage
    applied("delete", "-k", folder, "--wait=false")


def test_the_deployment_promotes_and_rolls_back_with_the_rights_that_ship(
    installed: Stage,
) -> None:
    stage, deployment = installed, f"deployment/penstock-controller-{installed.namespace}"

    def said() -> str:
        return kubectl(stage, "logs", deployment)

    stage.deploy(1)
    with stage.users(10.0) as users:
        stage.begin(2)
        record = stage.until(lambda r: r.over, seconds=600)
        assert record.phase == "promoted", (record.reason, said())
        assert record.owner.startswith("controller-penstock-controller-")
        assert stage.gone("m-v1")
        assert users.failures == []
        stage.begin(3, "--fault=live-errors=0.5")
        record = stage.until(lambda r: r.over and r.candidate == "m-v3", seconds=600)
        assert record.phase == "rolled_back", (record.reason, said())
        assert stage.gone("m-v3")
    assert [each for each in users.failures if "injected on purpose" not in each] == []
    print(told := said())
    assert "may not" not in told
    assert "missing rule" not in told
    (pod,) = json.loads(
        kubectl(stage, "get", "pods", "-l", "app.kubernetes.io/name=penstock-controller", "-ojson")
    )["items"]
    assert pod["status"]["containerStatuses"][0]["restartCount"] == 0


def _marked(obj: Any, phase: str, epoch: int) -> Any:
    marks = {acting.RECORD: "{}", acting.EPOCH: str(epoch), acting.PHASE: phase}
    return acting.annotated(obj, marks)


def _refusal(client: KubernetesCluster, obj: Any) -> str:
    """Return what an update that is only tried gets for an answer; empty when it may be."""
    try:
        client.replace(obj, dry_run=True)
    except Refused as problem:
        return str(problem)
    return ""


def test_admission_lets_through_what_may_follow_and_nothing_else(
    cluster: Running, namespace: str, policy: None
) -> None:
    client = connect(namespace=namespace)
    shipped = (_DEPLOY / "admission/rollout-policy.yaml").read_text()
    variables = next(yaml.safe_load_all(shipped))["spec"]["variables"]
    (table,) = (each["expression"] for each in variables if each["name"] == "follows")
    follows = yaml.safe_load(table)
    nobody = Gateway("nobody", namespace)  # so that no gateway writes a status meanwhile
    route = http_route("m", {"m-v1": 100}, Facts(namespace, gateway=nobody))
    client.create(_marked(route, "deploying", 5))

    def stored() -> Any:
        return client.get("HTTPRoute", "m")

    stale = "epoch 4 is stale, another owner has epoch 5"
    until("the policy", lambda: stale in _refusal(client, _marked(stored(), "deploying", 4)))
    for old in get_args(Phase):
        client.delete("HTTPRoute", "m")
        client.create(_marked(route, old, 5))
        obj = stored()
        for new in get_args(Phase):
            for epoch in (5, 6):
                again = old in OVER and (new, epoch) == ("deploying", 6)
                allowed = new in (old, *follows[old]) or again
                said = _refusal(client, _marked(obj, new, epoch))
                told = "" if allowed else f"a rollout cannot go from {old} to {new}"
                assert (told in said, bool(said)) == (True, not allowed), (old, new, epoch, said)
        assert stale in _refusal(client, _marked(obj, old, 4))
        for kept in ({}, {acting.EPOCH: "5", acting.PHASE: old}):
            bare = {**obj, "metadata": {**obj["metadata"], "annotations": kept}}
            assert "the rollout record must not be removed" in _refusal(client, bare)
    name = f"validatingadmissionpolicy/penstock-rollout-{namespace}"
    shown = subprocess.run(
        ["kubectl", "get", name, "-ojson"], check=True, capture_output=True, text=True
    ).stdout
    assert not json.loads(shown)["status"].get("typeChecking", {}).get("expressionWarnings")
    applied("apply", "--dry-run=server", "-k", str(_DEPLOY / "admission"))
