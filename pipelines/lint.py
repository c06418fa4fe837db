"""What silently breaks in a compiled pipeline, locally or on a cluster, found in its IR.

Each rule stands for a behavior seen in kfp 2.17: a condition on a named output that is silently
False, a loop body whose outer value is replaced by the loop item, and so on. A pipeline that
passes runs the same on a laptop and on a cluster.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml

Ir = dict[str, Any]


def lint(text: str) -> list[str]:
    """Return one sentence per construct that would break, naming the task; empty when clean."""
    spec: Ir = next(iter(yaml.safe_load_all(text)))
    problems: list[str] = []
    for group, dag, given in _dags(spec):
        for name, task in dag.get("tasks", {}).items():
            where = f"{group}/{name}"
            problems += [f"{where}: {p}" for p in _task_problems(spec, dag, task)]
            problems += [f"{where}: {p}" for p in _not_given(task, given)]
    for name, executor in spec.get("deploymentSpec", {}).get("executors", {}).items():
        problems += [f"{name}: {p}" for p in _executor_problems(executor)]
    return problems


def _dags(spec: Ir) -> Iterator[tuple[str, Ir, set[str]]]:
    """Yield groups of tasks with the names of the parameters that each is given."""
    groups = {"root": spec["root"], **spec.get("components", {})}
    for name, component in groups.items():
        if "dag" in component:
            given = component.get("inputDefinitions", {}).get("parameters", {})
            yield name, component["dag"], set(given)


def _not_given(task: Ir, given: set[str]) -> Iterator[str]:
    for name, source in task.get("inputs", {}).get("parameters", {}).items():
        key = source.get("componentInputParameter", "")
        if key and key not in given:
            yield (
                f"{name} is a parameter that the compiler does not hand into the group: a resource "
                "alone makes no input; give it to a component of the group too"
            )


def _task_problems(spec: Ir, dag: Ir, task: Ir) -> Iterator[str]:
    yield from _condition(dag, task)
    yield from _loop(task)
    yield from _group_inputs(spec, task)
    yield from _constants(spec, task)
    yield from _waiting(dag, task)
    key = task.get("cachingOptions", {}).get("cacheKey", "")
    if "{{channel:" in key:
        yield "cache_key holds a placeholder: compiled to a constant, it hits for every value"


def _condition(dag: Ir, task: Ir) -> Iterator[str]:
    if "condition" not in task.get("triggerPolicy", {}):
        return
    for name, source in task.get("inputs", {}).get("parameters", {}).items():
        output = source.get("taskOutputParameter")
        local = output and output["producerTask"] in dag["tasks"]
        if local and output["outputParameterKey"] != "Output":
            yield f"condition on the named output {name}: silently False; return one unnamed value"


def _loop(task: Ir) -> Iterator[str]:
    if "parameterIterator" not in task and "artifactIterator" not in task:
        return
    items = task.get("parameterIterator", {}).get("items", {}).get("inputParameter", "")
    for name, source in task.get("inputs", {}).get("parameters", {}).items():
        if "taskOutputParameter" in source and name != items:
            yield f"the loop body takes {name} from outside: replaced by the loop item"
    if "artifactIterator" in task:
        yield "a loop over artifacts: not implemented by the back end"


def _group_inputs(spec: Ir, task: Ir) -> Iterator[str]:
    component = spec["components"][task["componentRef"]["name"]]
    inputs = component.get("inputDefinitions", {})
    if "dag" in component and inputs.get("artifacts") and not inputs.get("parameters"):
        yield "a group whose only inputs are artifacts: give it a parameter too"
    for selector in component.get("dag", {}).get("outputs", {}).get("artifacts", {}).values():
        if len(selector.get("artifactSelectors", ())) > 1:
            yield "OneOf over artifacts: refused by the local runner"


def _waiting(dag: Ir, task: Ir) -> Iterator[str]:
    for name, source in task.get("inputs", {}).get("parameters", {}).items():
        producer = source.get("taskOutputParameter", {}).get("producerTask")
        if producer in dag["tasks"] and producer not in task.get("dependentTasks", ()):
            yield f"{name} makes no dependency: it may run first; add .after() of {producer}"


def _constants(spec: Ir, task: Ir) -> Iterator[str]:
    component = spec["components"][task["componentRef"]["name"]]
    declared = component.get("inputDefinitions", {}).get("parameters", {})
    for name, source in task.get("inputs", {}).get("parameters", {}).items():
        if name not in declared:
            continue  # a resource of the pod: the compiler adds it, and no component reads it
        value = str(source.get("runtimeValue", {}).get("constant", ""))
        for text in ("python3", "{{$."):
            if text in value:
                yield f"the constant of {name} contains {text!r}: the local runner replaces it"


def _executor_problems(executor: Ir) -> Iterator[str]:
    container = executor.get("container", {})
    command = " ".join(str(part) for part in container.get("command", ()))
    if "pip install" in command:
        yield "installs packages at run time: unpinned, and impossible without a network"
    if "WORKSPACE_PATH" in command or "workspace" in executor:
        yield "uses the workspace: deleted after every local run"
    if container.get("env"):
        yield "sets environment variables: the local runner sets them here too; use the image's"
    if not container.get("image"):
        yield "no image"
