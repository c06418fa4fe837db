"""What is run, written and asked for to get an engine: exact command lines. Pure.

* `checkpoint`: ModelOpt's unified export, served by `trtllm-serve FOLDER` (PyTorch backend).
* `engine`: quantize.py, then `trtllm-build`, served with `--backend tensorrt`; up to 1.2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

import yaml

from components.trtllm.model import Build, ModelFacts, Shape
from components.trtllm.refusals import refuse, refuse_gpu

SERVE_CONFIG = "extra_llm_args.yaml"
TOKENIZER = "tokenizer"
"""Folder with the parent's tokenizer: an engine has none."""


@dataclass(frozen=True, slots=True)
class Places:
    """Where things lie, while building and while serving."""

    source: PurePosixPath
    """The checkpoint to start from."""

    work: PurePosixPath
    """What stages write into."""

    python: str = "/usr/bin/python3"
    """The interpreter that has TensorRT-LLM; ours is another, whose pins contradict it."""

    examples: str = "/app/tensorrt_llm/examples"
    """As docker/Dockerfile.multi lays the release image out."""

    served_source: str = "/mnt/models"
    served_build: str = "/mnt/engine"
    host: str = "0.0.0.0"
    port: int = 8000


@dataclass(frozen=True, slots=True)
class Stage:
    """One command, and the folder it fills."""

    argv: tuple[str, ...]
    output: str
    """Below `Places.work`."""

    kept: bool
    """Part of the result, not only of the way there."""


@dataclass(frozen=True, slots=True)
class Resources:
    """What one pod asks for."""

    gpus: int
    cpus: int
    memory_bytes: int
    shm_bytes: int
    """Shared memory, through which the ranks talk."""

    disk_bytes: int

    def kubernetes(self) -> dict[str, dict[str, str]]:
        """Return the container's `resources`; shared memory counts as memory."""
        asked = {"cpu": str(self.cpus), "memory": f"{math.ceil(self.memory_bytes / 2**20)}Mi"}
        gpus = {"nvidia.com/gpu": str(self.gpus)}
        return {"requests": asked | gpus, "limits": {"memory": asked["memory"]} | gpus}


@dataclass(frozen=True, slots=True)
class Plan:
    """How to build and serve. Nothing in it is a secret."""

    stages: tuple[Stage, ...]
    files: dict[str, str] = field(hash=False)
    """Name to content, part of the result."""

    resources: Resources
    serve: tuple[str, ...]
    tokenizer: bool
    """Whether the result carries the parent's tokenizer, in the folder `tokenizer`."""


def plan(build: Build, places: Places) -> Plan:
    """Return how to build, or why it is impossible.

    Raises:
        RecipeImpossible: Strategy, shape, scheme, image and GPU do not go together; the hint
            names the nearest that do.
    """
    refuse(build)
    refuse_gpu(build)
    engine = build.strategy == "engine"
    stages = _engine(build, places) if engine else _checkpoint(build, places)
    return Plan(
        stages=stages,
        files={SERVE_CONFIG: yaml.safe_dump(_llm_args(build), sort_keys=True)},
        resources=_resources(build.model, build.shape, len(stages)),
        serve=_serve(build, places, produced=bool(stages)),
        tokenizer=engine,
    )


def _quantize(build: Build, places: Places, output: str) -> list[str]:
    argv = [
        places.python,
        f"{places.examples}/quantization/quantize.py",
        "--model_dir",
        str(places.source),
        "--output_dir",
        str(places.work / output),
        "--dtype",
        # a float32 parent becomes float16 there as well; other names are refused
        build.model.dtype if build.model.dtype in ("float16", "bfloat16") else "auto",
        "--qformat",
        "full_prec" if build.recipe is None else build.scheme,
    ]
    if build.recipe is not None:
        argv += ["--calib_dataset", build.calibration, "--calib_size", str(build.samples)]
    if build.group_size:
        argv += ["--awq_block_size", str(build.group_size)]
    if build.kv_dtype != "auto":
        argv += ["--kv_cache_dtype", build.kv_dtype]
    return argv


def _checkpoint(build: Build, places: Places) -> tuple[Stage, ...]:
    if build.recipe is None or build.model.quantized:
        return ()  # what is there is what is served
    argv = [*_quantize(build, places, "checkpoint"), "--export_format", "hf"]
    return (Stage(tuple(argv), "checkpoint", kept=True),)


def _engine(build: Build, places: Places) -> tuple[Stage, ...]:
    shape = build.shape
    # the ranks are laid out in the checkpoint; trtllm-build has no option for them
    convert = [
        *_quantize(build, places, "trtllm_checkpoint"),
        "--export_format",
        "tensorrt_llm",
        "--tp_size",
        str(shape.tp),
        "--pp_size",
        str(shape.pp),
    ]
    make = ["trtllm-build", "--checkpoint_dir", str(places.work / "trtllm_checkpoint")]
    make += ["--output_dir", str(places.work / "engine")]
    for name in (
        "max_batch_size",
        "max_input_len",
        "max_seq_len",
        "max_num_tokens",
        "max_beam_width",
    ):
        make += [f"--{name}", str(getattr(shape, name))]
    make += ["--kv_cache_type", "paged", "--workers", str(shape.gpus)]
    for name, value in plugins(build).items():
        make += [f"--{name}", value]
    return (
        Stage(tuple(convert), "trtllm_checkpoint", kept=False),
        Stage(tuple(make), "engine", kept=True),
    )


def plugins(build: Build) -> dict[str, str]:
    """Return the plugin options of `trtllm-build`; none for a checkpoint."""
    if build.strategy == "checkpoint":
        return {}
    chosen = {"gemm_plugin": "auto", "use_paged_context_fmha": "enable"}
    if build.scheme == build.kv_dtype == "fp8":
        chosen["use_fp8_context_fmha"] = "enable"  # needs both the weights and the cache in FP8
    return chosen


def _llm_args(build: Build) -> dict[str, Any]:
    """Return the YAML for `--extra_llm_api_options`.

    A `kv_cache_config` here replaces what the command line made, as a whole: the memory fraction
    stands here, and not there. The TensorRT backend refuses the cache's `dtype`, which is fixed
    in the engine, and iteration statistics.
    """
    cache: dict[str, Any] = {"enable_block_reuse": True, "free_gpu_memory_fraction": 0.9}
    args: dict[str, Any] = {
        "kv_cache_config": cache,
        # without it a prompt longer than one step is refused
        "enable_chunked_prefill": build.shape.max_num_tokens < build.shape.max_input_len,
        "return_perf_metrics": True,  # what /prometheus/metrics needs
    }
    if build.strategy == "checkpoint":
        cache["dtype"] = build.kv_dtype
        args["max_input_len"] = build.shape.max_input_len  # 1024 otherwise, and not an option
        args["enable_iter_perf_stats"] = True
    return args


def _serve(build: Build, places: Places, *, produced: bool) -> tuple[str, ...]:
    shape, engine, here = build.shape, build.strategy == "engine", places.served_build
    output = "engine" if engine else "checkpoint"
    argv = ["trtllm-serve", f"{here}/{output}" if produced else places.served_source]
    argv += ["--host", places.host, "--port", str(places.port)]
    if engine:
        argv += ["--backend", "tensorrt", "--tokenizer", f"{here}/{TOKENIZER}"]
    argv += ["--tp_size", str(shape.tp), "--pp_size", str(shape.pp)]
    for name in ("max_batch_size", "max_num_tokens", "max_seq_len", "max_beam_width"):
        argv += [f"--{name}", str(getattr(shape, name))]
    return (*argv, "--extra_llm_api_options", f"{here}/{SERVE_CONFIG}")


def _resources(model: ModelFacts, shape: Shape, stages: int) -> Resources:
    """Estimate what a build needs; nothing of it was measured on a GPU."""
    gib = 2**30
    shm = 2 * gib * shape.gpus
    return Resources(
        gpus=shape.gpus,
        cpus=4 + 2 * shape.gpus,
        # the parent while it is read, and as much again while ranks are written
        memory_bytes=2 * model.weights_bytes + 8 * gib + shm,
        shm_bytes=shm,
        # every stage writes at most what the parent weighs, and an engine once more
        disk_bytes=(stages + 1) * model.weights_bytes if stages else 1 << 20,
    )
