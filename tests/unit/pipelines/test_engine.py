"""The pipeline that builds engines asks for what its plan says, and waits for the plan."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from components import images
from pipelines.compile import PIPELINES, compile_text


@pytest.fixture(scope="module")
def ir() -> dict[str, Any]:
    found: dict[str, Any] = next(yaml.safe_load_all(compile_text(PIPELINES["engine"])))
    return found


@pytest.fixture(scope="module")
def tasks(ir: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = ir["components"]["comp-exit-handler-1"]["dag"]["tasks"]
    return found


def test_the_build_runs_on_gpus_in_the_image_that_has_tensorrt_llm(ir: dict[str, Any]) -> None:
    container = ir["deploymentSpec"]["executors"]["exec-build-engine"]["container"]
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


def test_it_waits_for_what_its_resources_come_from(tasks: dict[str, Any]) -> None:
    build = tasks["build-engine"]
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
    asking = {name for name, each in executors.items() if "resources" in each["container"]}
    assert asking == {"exec-build-engine"}


def test_it_concludes_however_it_ends(ir: dict[str, Any]) -> None:
    conclude = ir["root"]["dag"]["tasks"]["conclude"]
    assert conclude["triggerPolicy"]["strategy"] == "ALL_UPSTREAM_TASKS_COMPLETED"
