"""What Kubeflow's UI shows of a task: the first HTML and the first Markdown artifact, no more."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from pipelines.compile import PIPELINES, compile_text

_SHOWN = ("system.HTML", "system.Markdown")
_REPORTED = {
    *("scan", "check-data", "quantize", "evaluate", "rollout", "train", "detect-changes"),
    *("go-back", "build-engine", "judge-engine", "conclude"),
}
"""Tasks with something to show; the others bring, write down or plan."""

_SPECS: dict[str, Any] = {
    name: next(iter(yaml.safe_load_all(compile_text(pipeline))))
    for name, pipeline in PIPELINES.items()
}


def _components(spec: Any) -> Iterator[tuple[str, Any]]:
    for name, component in spec["components"].items():
        if "executorLabel" in component:
            yield name.removeprefix("comp-"), component


def _types(component: Any) -> list[str]:
    artifacts = component.get("outputDefinitions", {}).get("artifacts", {})
    return [each["artifactType"]["schemaTitle"] for each in artifacts.values()]


@pytest.mark.parametrize("name", sorted(_SPECS))
def test_a_task_has_one_report_and_one_set_of_numbers_at_most(name: str) -> None:
    for task, component in _components(_SPECS[name]):
        types = _types(component)
        assert sum(each in _SHOWN for each in types) == (task in _REPORTED), task
        assert types.count("system.Metrics") <= 1, task


@pytest.mark.parametrize("name", sorted(_SPECS))
def test_everything_a_person_fills_in_is_described(name: str) -> None:
    spec = _SPECS[name]
    assert spec["pipelineInfo"]["description"]
    for component in (spec["root"], *(found for _, found in _components(spec))):
        inputs = component.get("inputDefinitions", {})
        for given in (
            *inputs.get("parameters", {}).values(),
            *inputs.get("artifacts", {}).values(),
        ):
            assert given.get("description"), given


@pytest.mark.parametrize("name", sorted(_SPECS))
def test_no_group_of_the_graph_is_called_by_a_number(name: str) -> None:
    spec = _SPECS[name]
    dags = [spec["root"], *(c for c in spec["components"].values() if "dag" in c)]
    shown = [task["taskInfo"]["name"] for dag in dags for task in dag["dag"]["tasks"].values()]
    assert not [each for each in shown if each.rstrip("0123456789") != each]
