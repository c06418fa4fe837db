"""Build what TensorRT-LLM serves: pinned, planned, then built and judged on a GPU."""

from typing import NamedTuple

from kfp import dsl

from components import images


@dsl.component(base_image=images.STEPS, install_kfp_package=False)
def resolve_engine(spec: str) -> str:
    """Return the spec's source and data sets, pinned, as one JSON document.

    Args:
        spec: The document `model.yaml`, as JSON.
    """
    import os

    from components.steps import build_engine as work
    from components.steps.context import step

    with step("resolve", os.environ) as context:
        return work.resolve(context, spec)


@dsl.component(base_image=images.STEPS, install_kfp_package=False)
def plan_engine(spec: str, resolved: str, checkpoint: dsl.Input[dsl.Model]) -> NamedTuple(  # type: ignore[valid-type]
    "Needs", gpus=str, cpus=str, memory=str
):
    """Return what the build's pod asks for: numbers of GPUs and CPUs, and memory.

    Args:
        spec: The document `model.yaml`, as JSON.
        resolved: What `resolve_engine` returned.
        checkpoint: Manifest from `pull`.
    """
    import os

    from components.steps import build_engine as work
    from components.steps.context import step

    with step("plan_engine", os.environ) as context:
        return work.plan_engine(context, spec, resolved, checkpoint.path)


@dsl.component(base_image=images.TRTLLM, install_kfp_package=False)
def build_engine(
    spec: str,
    resolved: str,
    checkpoint: dsl.Input[dsl.Model],
    engine: dsl.Output[dsl.Artifact],
    page: dsl.Output[dsl.HTML],
) -> None:
    """Build once per key; the artifact says where it is, and how it is served.

    Args:
        spec: The document `model.yaml`, as JSON.
        resolved: What `resolve_engine` returned.
        checkpoint: Manifest from `pull`.
        engine: Key, folder, root of its manifest, serving command and resources.
        page: What was built, for what, and how it is served, for the UI.
    """
    import os

    from components.steps import build_engine as work
    from components.steps.context import step

    with step("build_engine", os.environ, page.path, spec) as context:
        work.build_engine(context, os.environ, spec, resolved, checkpoint.path, engine.path)


@dsl.component(base_image=images.TRTLLM, install_kfp_package=False)
def judge_engine(
    spec: str,
    resolved: str,
    checkpoint: dsl.Input[dsl.Model],
    engine: dsl.Input[dsl.Artifact],
    servable: dsl.Output[dsl.Artifact],
    page: dsl.Output[dsl.HTML],
) -> None:
    """Serve parent and result one after the other, and refuse a result that is worse.

    Args:
        spec: The document `model.yaml`, as JSON.
        resolved: What `resolve_engine` returned.
        checkpoint: Manifest from `pull`.
        engine: What `build_engine` made.
        servable: The same with its verdict, where that is to accept it.
        page: The verdict and its numbers, for the UI.
    """
    import os

    from components.steps.context import step
    from components.steps.judge_engine import judge_engine as work

    with step("judge_engine", os.environ, page.path, spec) as context:
        work(context, os.environ, spec, resolved, checkpoint.path, engine.path, servable.path)
