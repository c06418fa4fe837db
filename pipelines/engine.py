"""From the Hub to what TensorRT-LLM serves: pulled, checked, planned and built on a GPU."""

from kfp import dsl

from components.build_engine import build_engine, plan_engine, resolve_engine
from components.conclude import conclude
from components.pull import pull
from components.scan import scan


@dsl.pipeline(name="penstock-engine")
def engine(spec: str) -> None:
    """Build the engine, or the checkpoint, that a spec asks for; one that is there is found.

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
        built.after(needs)  # a resource that comes from a task makes no dependency
        built.set_caching_options(False)  # the cache is ours: it knows the node
        built.set_accelerator_type("nvidia.com/gpu")
        built.set_accelerator_limit(needs.outputs["gpus"])
        built.set_cpu_request(needs.outputs["cpus"])
        built.set_memory_request(needs.outputs["memory"])
        built.set_memory_limit(needs.outputs["memory"])
