"""TrainJobs as somebody read them, as four releases of Trainer define them, and what they say."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

import jsonschema
import pytest
import yaml

from components.training.train_job import (
    COMMAND,
    State,
    deepspeed,
    name_of,
    objects,
    require_shared,
    state_of,
)
from penstock.core.errors import ConfigurationError
from serving.cluster import Object
from tests.cluster.build import TRAINERS
from tests.unit.components.training.jobs import CASES, GOLDEN, TORCHRUN, job, train_job, written
from tests.unit.serving.kserve.definitions import closed, of_module

VERSIONS = [module.rpartition("@")[2] for module in TRAINERS]
_PLURALS = {"TrainJob": "trainjobs", "TrainingRuntime": "trainingruntimes"}


@cache
def _schema(kind: str, version: str) -> dict[str, Any]:
    (module,) = (each for each in TRAINERS if each.endswith(version))
    text = of_module(
        f"{module}/manifests/base/crds/trainer.kubeflow.org_{_PLURALS[kind]}.yaml"
    ).read_text()
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    (found,) = yaml.load_all(text, loader)
    declared = found["spec"]["versions"][0]
    assert (declared["name"], declared["served"]) == ("v1alpha1", True)
    schema: dict[str, Any] = closed(declared["schema"]["openAPIV3Schema"])
    schema["properties"]["metadata"] = {"type": "object"}
    return schema


def mistakes(obj: Object, version: str) -> list[str]:
    """Return what a release's definition says against an object."""
    found = jsonschema.Draft7Validator(_schema(obj["kind"], version)).iter_errors(obj)
    return [f"{'/'.join(map(str, each.absolute_path))}: {each.message[:200]}" for each in found]


@pytest.mark.parametrize("name", written())
def test_an_object_is_as_it_was_read(name: str) -> None:
    assert (GOLDEN / name).exists(), "python -m tests.unit.components.training.jobs, then read it"
    assert (GOLDEN / name).read_text() == written()[name]


def test_no_golden_file_is_left_over() -> None:
    assert {path.name for path in GOLDEN.iterdir()} == written().keys()


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", CASES)
def test_every_release_takes_it(name: str, version: str) -> None:
    for obj in objects(job(CASES[name])):
        assert mistakes(obj, version) == []


@pytest.mark.parametrize("version", VERSIONS)
def test_the_definition_sees_a_wrong_one(version: str) -> None:
    """Else the test above could not fail."""
    wrong = copy.deepcopy(train_job(TORCHRUN))
    del wrong["spec"]["runtimeRef"]["name"]
    wrong["spec"]["trainer"]["numNodes"] = "two"
    wrong["spec"]["trainer"]["nodes"] = 2
    told = " ".join(mistakes(wrong, version))
    assert "name" in told
    assert "numNodes" in told
    assert "nodes" in told


def test_job_and_runtime_belong_together_and_a_named_runtime_is_left_alone() -> None:
    runtime, made = objects(job(TORCHRUN))
    assert made["spec"]["runtimeRef"]["name"] == runtime["metadata"]["name"]
    (alone,) = objects(job(CASES["zero3"]))
    assert alone["spec"]["runtimeRef"]["kind"] == "ClusterTrainingRuntime"
    assert alone["spec"]["runtimeRef"]["name"] == "team-torch"
    assert alone["spec"]["trainer"]["command"] == list(COMMAND)


def test_devices_are_asked_for_per_pod_and_the_container_is_the_one_that_trainer_fills() -> None:
    limits = train_job(TORCHRUN)["spec"]["trainer"]["resourcesPerNode"]["limits"]
    assert limits["nvidia.com/gpu"] == 4
    assert set(train_job(CASES["processes"])["spec"]["trainer"]["resourcesPerNode"]["limits"]) == {
        "cpu",
        "memory",
    }
    (replicated,) = objects(job(TORCHRUN))[0]["spec"]["template"]["spec"]["replicatedJobs"]
    assert replicated["name"] == "node"
    labels = replicated["template"]["metadata"]["labels"]
    assert labels == {"trainer.kubeflow.org/trainjob-ancestor-step": "trainer"}


def test_the_same_work_has_the_same_short_name() -> None:
    assert name_of("chat", "ab" * 32) == name_of("chat", "ab" * 32) != name_of("chat", "ba" * 32)
    assert len(name_of("m" * 40, "ab" * 32)) <= 50


def test_what_pods_would_not_see_is_refused() -> None:
    require_shared(["/data/penstock/store/x"], TORCHRUN)
    for path in ("/data/penstock-2/x", "/root/x", "relative"):
        with pytest.raises(ConfigurationError, match="does not lie below /data/penstock"):
            require_shared([path], TORCHRUN)


def test_deepspeed_divides_what_its_stage_says() -> None:
    assert deepspeed(None) is None
    assert deepspeed(TORCHRUN) is None
    two, three = deepspeed(CASES["zero2"]), deepspeed(CASES["zero3"])
    assert two is not None
    assert three is not None
    assert [each["zero_optimization"]["stage"] for each in (two, three)] == [2, 3]
    # without this the weights at the end would be one process's part
    assert three["zero_optimization"]["stage3_gather_16bit_weights_on_model_save"] is True


def _condition(kind: str, reason: str, message: str, status: str = "True") -> Object:
    return {"type": kind, "status": status, "reason": reason, "message": message}


_ACTIVE = [{"name": "node", "ready": 1, "active": 2, "succeeded": 0, "failed": 0, "suspended": 0}]


@pytest.mark.parametrize(
    ("status", "wanted"),
    [
        (None, State("pending", "Trainer has not started its pods")),
        ({}, State("pending", "Trainer has not started its pods")),
        ({"jobsStatus": _ACTIVE}, State("running", "2 jobs are active, 1 ready")),
        (
            {"conditions": [_condition("Suspended", "Suspended", "TrainJob is suspended")]},
            State("suspended", "Suspended: TrainJob is suspended"),
        ),
        (
            {
                "conditions": [_condition("Suspended", "Resumed", "", "False")],
                "jobsStatus": _ACTIVE,
            },
            State("running", "2 jobs are active, 1 ready"),
        ),
        (
            {"conditions": [_condition("Complete", "JobsCompleted", "jobset completed")]},
            State("succeeded", "JobsCompleted: jobset completed"),
        ),
        (
            {"conditions": [_condition("Failed", "FailedJobs", "node-0 failed")]},
            State("failed", "FailedJobs: node-0 failed"),
        ),
        ({"conditions": [_condition("Failed", "", "")]}, State("failed", "Failed")),
    ],
)
def test_a_status_says_how_far_it_is(status: Object | None, wanted: State) -> None:
    """The statuses are written here, after Trainer's types: no Trainer ran."""
    obj = train_job(TORCHRUN)
    assert state_of(obj if status is None else {**obj, "status": status}) == wanted
