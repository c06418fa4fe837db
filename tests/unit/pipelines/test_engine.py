"""The pipeline that builds engines asks for what its plan says, and waits for the plan."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from components import images
from pipelines.compile import PIPELINES, compile_text
from pipelines.steps import ENGINE_STEPS


@pytest.fixture(scope="module")
def ir() -> dict[str, Any]:
    found: dict[str, Any] = next(yaml.safe_load_all(compile_text(PIPELINES["engine"])))
    return found


@pytest.fixture(scope="module")
def tasks(ir: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = ir["components"]["comp-exit-handler-1"]["dag"]["tasks"]
    return found


@pytest.mark.parametrize("name", ["build", "judge"])
def test_it_is_built_and_judged_on_gpus_in_the_image_that_has_tensorrt_llm(
    ir: dict[str, Any], name: str
) -> None:
    container = ir["deploymentSpec"]["executors"][f"exec-{name}-engine"]["container"]
    assert container["image"] == images.TRTLLM

    def from_plan(name: str) -> str:
        return f"{{{{$.inputs.parameters['pipelinechannel--plan-engine-{name}']}}}}"

    assert container["resources"] == {
        "accelerator": {
            "resourceCount": from_plan("gpus"),
            "resourceType": "nvidia.com/gpu",
            "type": "nvidia.com/gpu",
        },
        "resourceCpuRequest": from_plan("cpus"),
        "resourceMemoryRequest": from_plan("memory"),
        "resourceMemoryLimit": from_plan("memory"),
    }


@pytest.mark.parametrize("name", ["build", "judge"])
def test_it_waits_for_what_its_resources_come_from(tasks: dict[str, Any], name: str) -> None:
    build = tasks[f"{name}-engine"]
    producers = {
        source["taskOutputParameter"]["producerTask"]
        for source in build["inputs"]["parameters"].values()
        if "taskOutputParameter" in source
    }
    assert producers == {"plan-engine", "resolve-engine"}
    assert producers <= set(build["dependentTasks"])


def test_no_gpu_is_taken_for_what_was_not_scanned_and_planned(
    ir: dict[str, Any], tasks: dict[str, Any]
) -> None:
    assert "scan" in tasks["plan-engine"]["dependentTasks"]
    executors = ir["deploymentSpec"]["executors"]
    asking = {
        name for name, each in executors.items() if "accelerator" in each["container"]["resources"]
    }
    assert asking == {"exec-build-engine", "exec-judge-engine"}


def test_what_is_judged_is_what_was_built(tasks: dict[str, Any]) -> None:
    judged = tasks["judge-engine"]["inputs"]["artifacts"]["engine"]["taskOutputArtifact"]
    assert judged == {"producerTask": "build-engine", "outputArtifactKey": "engine"}


def test_the_steps_that_people_see_are_those_of_the_pipeline(tasks: dict[str, Any]) -> None:
    shown = {name.replace("resolve-engine", "resolve").replace("-", "_") for name in tasks}
    assert shown == set(ENGINE_STEPS)


def test_it_concludes_however_it_ends(ir: dict[str, Any]) -> None:
    conclude = ir["root"]["dag"]["tasks"]["conclude"]
    assert conclude["triggerPolicy"]["strategy"] == "ALL_UPSTREAM_TASKS_COMPLETED"
