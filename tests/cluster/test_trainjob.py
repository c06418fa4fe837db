"""TrainJobs on the real API server, with Kubeflow Trainer's own definitions of 2.0 and 2.3.

**Trainer itself does not run here**: nothing trains. The server checks our objects against its
definitions and keeps them; what Trainer would report is written into the status by the test, and
the server checks that too.
"""

from __future__ import annotations

import copy
import json
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from components.training import produce, remote
from components.training.train_job import RESULT, Job, objects
from penstock.core.errors import TrainingFailed
from penstock.core.training import Distributed
from serving.cluster import Object
from serving.kube import KubernetesCluster, connect
from serving.kube.errors import Refused
from serving.kube.readback import includes
from tests.cluster.build import TRAINERS
from tests.cluster.conftest import Running
from tests.cluster.waiting import pause, until
from tests.unit.components.training.jobs import CASES, TORCHRUN, job
from tests.unit.serving.kserve.definitions import of_module

pytestmark = [pytest.mark.cluster, pytest.mark.wider, pytest.mark.enable_socket]

_CRDS = ("trainjobs", "trainingruntimes")
_GROUP = "trainer.kubeflow.org"


@pytest.fixture(
    scope="module", params=[TRAINERS[0], TRAINERS[-1]], ids=lambda m: m.rpartition("@")[2]
)
def definitions(request: pytest.FixtureRequest, cluster: Running) -> Iterator[None]:
    """Trainer's definitions are there, as its manifests have them."""
    files = [of_module(f"{request.param}/manifests/base/crds/{_GROUP}_{crd}.yaml") for crd in _CRDS]
    names = [f"crd/{crd}.{_GROUP}" for crd in _CRDS]
    for file in files:
        _kubectl(cluster, "apply", "--server-side", "-f", str(file))
    _kubectl(cluster, "wait", "--for=condition=Established", *names, "--timeout=60s")
    yield
    _kubectl(cluster, "delete", *names, "--timeout=120s")


@pytest.fixture
def space(definitions: None, cluster: Running, namespace: str) -> Iterator[KubernetesCluster]:
    with connect(kubeconfig=cluster.kubeconfig, namespace=namespace) as found:
        until(
            "the server to serve both kinds",
            lambda: found.list("TrainJob") == found.list("TrainingRuntime") == [],
            30,
        )
        yield found


@pytest.mark.parametrize("name", CASES)
def test_every_strategy_is_accepted_as_it_is(space: KubernetesCluster, name: str) -> None:
    for written in objects(replace(job(CASES[name]), namespace=space.namespace)):
        made = space.create(written, dry_run=True)
        assert includes(made, written), "the server changed what was written"


def _changed(path: str, value: Any) -> Object:
    obj = copy.deepcopy(objects(job(TORCHRUN))[-1])
    *parents, last = path.split("/")
    inner = obj["spec"]
    for each in parents:
        inner = inner[each]
    inner[last] = value
    return obj


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        ("trainer/numNodes", "two", "numNodes"),
        ("trainer/numNodez", 2, "numNodez"),
        ("runtimeRef", None, "runtimeRef"),
        ("trainer/command", "torchrun", "command"),
    ],
)
def test_a_bad_one_is_refused_by_name(
    space: KubernetesCluster, path: str, value: Any, told: str
) -> None:
    wrong = _changed(path, value)
    wrong["metadata"]["namespace"] = space.namespace
    with pytest.raises(Refused, match=told):
        space.create(wrong, dry_run=True)


class Status:
    """Writes what Trainer would report, one status per look, and the result's file."""

    def __init__(self, space: KubernetesCluster, job: Job, statuses: list[Object]) -> None:
        self.space, self.job, self.statuses = space, job, statuses

    def pause(self, _seconds: float) -> None:
        obj = self.space.get("TrainJob", self.job.name)
        if obj is None or not self.statuses:
            pause(0.2)
        else:
            self.space.replace_status({**obj, "status": self.statuses.pop(0)})


def _condition(kind: str) -> Object:
    return {
        "conditions": [
            {
                "type": kind,
                "status": "True",
                "reason": "JobsEnded",
                "message": "written by the test",
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            }
        ]
    }


_COUNTS = {"ready": 2, "active": 2, "succeeded": 0, "failed": 0, "suspended": 0}
_RUNNING: Object = {"jobsStatus": [{"name": "node", **_COUNTS}]}


def _followed(space: KubernetesCluster, folder: Path, statuses: list[Object]) -> Any:
    where = Distributed(strategy="torchrun", volume=f"pvc://home={folder}", nodes=2)
    made = Job("chat-01234567", space.namespace, "image:1", str(folder / "job"), where)
    request = dict.fromkeys(("base", "data", "progress", "scratch"), str(folder))
    status = Status(space, made, statuses)
    return remote.run(space, made, request, _Late(folder), produce.VOICE, pause=status.pause)


class _Late:
    """Leaves the result when the job is first told of: before that the folder is emptied."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "job" / RESULT

    def __call__(self, _body: Any) -> None:
        self._file.write_text(json.dumps({"steps": 4}))


def test_a_job_is_followed_to_its_end_and_removed(space: KubernetesCluster, tmp_path: Path) -> None:
    """Its status is faked, in the shapes that the server admits."""
    ran = _followed(space, tmp_path, [_RUNNING, _condition("Complete")])
    assert ran.result == {"steps": 4}
    assert space.list("TrainJob") == space.list("TrainingRuntime") == []


def test_a_failed_job_says_why(space: KubernetesCluster, tmp_path: Path) -> None:
    with pytest.raises(TrainingFailed, match="JobsEnded: written by the test"):
        _followed(space, tmp_path, [_RUNNING, _condition("Failed")])
    assert space.list("TrainJob") == []


def _kubectl(cluster: Running, *arguments: str) -> None:
    subprocess.run(
        ["kubectl", "--kubeconfig", cluster.kubeconfig, *arguments],
        check=True, capture_output=True, timeout=180,
    )  # fmt: skip
