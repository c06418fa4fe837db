"""Every runtime, and which one serves a spec."""

from __future__ import annotations

from penstock.core.errors import ConfigurationError
from penstock.core.spec import ModelSpec
from serving.runtimes.others import CPU, TGI
from serving.runtimes.runtime import Runtime, place
from serving.runtimes.sglang import SGLANG
from serving.runtimes.trtllm import TRITON_ENGINE, TRTLLM, TRTLLM_ENGINE
from serving.runtimes.vllm import HUGGINGFACE, TRITON, VLLM

RUNTIMES: dict[str, Runtime] = {
    each.key: each
    for each in (
        *(VLLM, SGLANG, TRTLLM, TRTLLM_ENGINE, TRITON, TRITON_ENGINE, HUGGINGFACE, TGI),
        CPU,
    )
}
"""In the order in which they are worth looking at."""


def runtime_of(spec: ModelSpec) -> Runtime:
    """Return the runtime of a spec.

    Raises:
        ConfigurationError: It does not run on that hardware, or Penstock does not roll it out.
    """
    name, where = spec.engine_name, place(spec)
    built = name in {"tensorrt-llm", "triton"} and spec.engine.strategy == "engine"
    found = RUNTIMES[f"{name}-engine" if built else name]
    if found.refused:
        raise ConfigurationError(
            f"runtime {name} with an engine: {found.refused}", hint="set runtime: tensorrt-llm"
        )
    if where not in found.matrix:
        others = [key for key, each in RUNTIMES.items() if where in each.matrix and not each.frozen]
        raise ConfigurationError(
            f"runtime {name} cannot use {spec.hardware.accelerator}",
            hint=f"set runtime: auto, or one of {', '.join(others)}; or another accelerator",
        )
    return found
