import json
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kfp import dsl

from components.steps.parameters import as_parameter
from pipelines.compile import PIPELINES, compile_text
from pipelines.lint import lint


@dsl.component(base_image="python", install_kfp_package=False)
def number() -> int:
    return 1


@dsl.component(base_image="python", install_kfp_package=False)
def cores() -> str:
    return "4"


@dsl.component(base_image="python", install_kfp_package=False)
def pair() -> NamedTuple("Pair", passed=bool, names=list):  # type: ignore[valid-type]
    return (True, [])


@dsl.component(base_image="python", install_kfp_package=False)
def use(value: int, text: str = "") -> None:
    pass


@dsl.component(base_image="python")
def installs() -> None:
    pass


@dsl.component(base_image="python", install_kfp_package=False)
def make(data: dsl.Output[dsl.Dataset]) -> None:
    pass


@dsl.component(base_image="python", install_kfp_package=False)
def read(data: dsl.Input[dsl.Dataset]) -> None:
    pass


@dsl.pipeline
def named_condition() -> None:
    task = pair()
    with dsl.If(task.outputs["passed"] == True):  # noqa: E712 - kfp builds the condition from ==
        number()


@dsl.pipeline
def unnamed_condition() -> None:
    task = number()
    with dsl.If(task.output == 1):
        number()


@dsl.pipeline
def outer_value_in_loop() -> None:
    outer = number()
    with dsl.ParallelFor(["a", "b"]) as item:
        use(value=outer.output, text=item)


@dsl.pipeline
def constant_python3() -> None:
    use(value=1, text="/usr/lib/python3.11")


@dsl.pipeline
def artifacts_only(data: dsl.Input[dsl.Dataset]) -> None:
    read(data=data)


@dsl.pipeline
def group_of_artifacts_only() -> None:
    artifacts_only(data=make().output)


@dsl.pipeline
def resource_of_a_task() -> None:
    wanted = cores()
    number().set_cpu_limit(wanted.output)


@dsl.pipeline
def resource_of_a_group(devices: int = 0) -> None:
    with dsl.ExitHandler(use(value=1)):
        number().set_accelerator_limit(devices)


@dsl.pipeline
def environment() -> None:
    number().set_env_variable("PENSTOCK_HOME", "/elsewhere")


@dsl.pipeline
def runtime_install() -> None:
    installs()


@pytest.mark.parametrize(
    ("pipeline", "says"),
    [
        (named_condition, "silently False"),
        (outer_value_in_loop, "replaced by the loop item"),
        (constant_python3, "'python3'"),
        (group_of_artifacts_only, "only inputs are artifacts"),
        (resource_of_a_task, "makes no dependency"),
        (resource_of_a_group, "does not hand into the group"),
        (environment, "sets environment variables"),
        (runtime_install, "installs packages"),
    ],
)
def test_finds(pipeline: object, says: str) -> None:
    problems = lint(compile_text(pipeline))
    assert any(says in p for p in problems), problems


def test_accepts_the_safe_form() -> None:
    assert lint(compile_text(unnamed_condition)) == []


@pytest.mark.parametrize("name", sorted(PIPELINES))
def test_our_pipelines_are_clean(name: str) -> None:
    assert lint(compile_text(PIPELINES[name])) == []


@given(st.dictionaries(st.text(), st.one_of(st.text(), st.just("python3 {{$.x"))))
def test_documents_keep_their_meaning(value: dict[str, str]) -> None:
    document = as_parameter(json.dumps(value))
    assert json.loads(document) == value
    assert "python3" not in document
    assert "{{$." not in document
