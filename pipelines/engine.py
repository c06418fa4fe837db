"""From the Hub to what TensorRT-LLM serves: pulled, checked, planned, built and judged on a GPU."""

from kfp import dsl

from pipelines.tasks import (
    build_engine,
    conclude,
    judge_engine,
    plan_engine,
    pull,
    resolve_engine,
    scan,
)


@dsl.pipeline(name="penstock-engine")
def engine(spec: str) -> None:
    """Build the engine, or the checkpoint, that a spec asks for, and judge it against its parent.

    What is there is found, with its verdict.

    Args:
        spec: The document `model.yaml`, as JSON.
    """
    with dsl.ExitHandler(conclude(spec=spec), name="steps"):
        resolved = resolve_engine(spec=spec)
        resolved.set_caching_options(False)  # a branch may have moved since
        pulled = pull(spec=spec, resolved=resolved.output)
        checkpoint = pulled.outputs["checkpoint"]
        scanned = scan(spec=spec, checkpoint=checkpoint)
        needs = plan_engine(spec=spec, resolved=resolved.output, checkpoint=checkpoint)
        needs.after(scanned)
        built = build_engine(spec=spec, resolved=resolved.output, checkpoint=checkpoint)
        judged = judge_engine(
            spec=spec,
            resolved=resolved.output,
            checkpoint=checkpoint,
            engine=built.outputs["engine"],
        )
        for task in (built, judged):
            task.after(needs)  # a resource that comes from a task makes no dependency
            task.set_caching_options(False)  # the cache is ours: it knows the node
            task.set_accelerator_type("nvidia.com/gpu")
            task.set_accelerator_limit(needs.outputs["gpus"])
            task.set_cpu_request(needs.outputs["cpus"])
            task.set_memory_request(needs.outputs["memory"])
            task.set_memory_limit(needs.outputs["memory"])
