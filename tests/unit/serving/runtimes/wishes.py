"""Specs that ask for everything an engine can be told, each thing alone and all together."""

from __future__ import annotations

from typing import Any

from penstock.core.spec import ModelSpec
from serving.runtimes.runtime import Can, Runtime

GPUS = {"accelerator": "nvidia-h100-80gb", "count": 4}
SAID: dict[Can, dict[str, Any]] = {
    "context": {"context": 8192},
    "concurrency": {"concurrency": 48},
    "max_queued": {"max_queued": 100},
    "max_answer_tokens": {"max_answer_tokens": 2048},
    "tensor_parallel": {"tensor_parallel": 4},
    "pipeline_parallel": {"pipeline_parallel": 2},
    "kv_cache": {"kv_cache": "fp8"},
    "memory_share": {"memory_share": 0.85},
    "chunked_prefill": {"chunked_prefill": False},
    "prefix_caching": {"prefix_caching": False},
    "speculative: draft": {"speculative": {"kind": "draft", "model": "draft", "tokens": 5}},
    "speculative: ngram": {"speculative": {"kind": "ngram", "tokens": 6}},
    "speculative: eagle 1": {"speculative": {"kind": "eagle", "model": "head", "version": 1}},
    "speculative: eagle 3": {"speculative": {"kind": "eagle", "model": "head"}},
    "chat_template": {"chat_template": "chat.jinja"},
    "tool_parser": {"tool_parser": "mistral"},
    "reasoning_parser": {"reasoning_parser": "qwen3"},
    "lora": {"lora": {"adapters": {"law": "adapters/law", "art": "adapters/art"}}},
}


def spec(**fields: Any) -> ModelSpec:
    """Return a spec of the model `chat`."""
    return ModelSpec.model_validate({"name": "chat", "source": "hf://org/chat", **fields})


def on(runtime: Runtime, serving: dict[str, Any] | None = None, **fields: Any) -> ModelSpec:
    """Return a spec that the runtime serves: beside four GPUs, if it can use any."""
    hardware = GPUS if "gpu" in runtime.matrix else {}
    built = {"engine": {"strategy": "engine"}} if runtime.key.endswith("-engine") else {}
    name = runtime.key.removesuffix("-engine")
    return spec(
        **{"runtime": name, "hardware": hardware, "serving": serving or {}, **built, **fields}
    )


def wishes(runtime: Runtime) -> dict[str, ModelSpec]:
    """Return what a runtime may be asked, by name: nothing, each thing alone, and all together."""
    alone: dict[str, dict[str, Any]] = {can: SAID[can] for can in SAID if can in runtime.can}
    everything: dict[str, Any] = {}
    for said in alone.values():
        everything |= said
    if "pipeline_parallel" in alone:
        everything["tensor_parallel"] = 2
    switches: tuple[Can, ...] = ("chunked_prefill", "prefix_caching")
    switched_on: dict[str, Any] = {name: True for name in switches if name in runtime.can}
    named: dict[str, dict[str, Any]] = {
        "nothing": {},
        **alone,
        "everything": everything,
        "switched on": {**switched_on},
    }
    two = {"over nodes": on(runtime, hardware={**GPUS, "nodes": 2})} if runtime.over_nodes else {}
    return {**{name: on(runtime, said) for name, said in named.items()}, **two}
