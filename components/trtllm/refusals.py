"""What cannot be built or served, why, and what is nearest to it. Pure.

Whether a scheme suits other engines and versions is not decided here.
"""

from __future__ import annotations

from collections.abc import Callable

from components.trtllm.documented import ENGINE_IMAGE, KNOWN_LINES, LAST_WITH_ENGINES
from components.trtllm.model import (
    SCHEMES,
    ModelFacts,
    Recipe,
    RuntimeImage,
    Scheme,
    Shape,
    Strategy,
)
from penstock.core.errors import RecipeImpossible
from penstock.core.hardware import Accelerator

_GPUS_PER_NODE = 8
"""More ranks need MPI across nodes, which no command here starts."""

_KV_SHARE = 0.1
"""Of a GPU's memory; with less left for the KV cache a start is not worth trying. An estimate."""

_SM: dict[Scheme, tuple[int, int | None]] = {
    "none": (80, None),
    "fp8": (89, None),
    "int4_awq": (80, 90),
    "w4a8_awq": (89, 90),
    "nvfp4": (100, None),
}
"""First and last SM: hardware matrix of docs/source/features/quantization.md @09d4c79."""


def refuse(
    strategy: Strategy, model: ModelFacts, recipe: Recipe, shape: Shape, image: RuntimeImage
) -> None:
    """Raise `RecipeImpossible` for what no GPU could help."""
    _version(strategy, image)
    _stages(strategy, model, recipe)
    _lengths(model, shape)
    _parallel(model, shape)
    if recipe.scheme in ("int4_awq", "w4a8_awq"):
        _groups(model, recipe, shape)


def served_scheme(model: ModelFacts, recipe: Recipe) -> Scheme:
    """Return the scheme of the weights that are served."""
    return model.quantized or recipe.scheme


def unfit(scheme: Scheme, sm: int) -> str:
    """Return why a GPU cannot run a scheme under TensorRT-LLM; empty when it can."""
    first, last = _SM[scheme]
    if sm < first:
        return f"{scheme} needs SM{first} or later, this is SM{sm}"
    if last is not None and sm > last:
        return f"{scheme} runs on SM{first} to SM{last}, this is SM{sm}"
    return ""


def refuse_gpu(model: ModelFacts, recipe: Recipe, shape: Shape, gpu: Accelerator) -> None:
    """Raise `RecipeImpossible` when the GPU cannot run the scheme, or holds too little."""
    sm = gpu.sm or 0
    if why := unfit(served_scheme(model, recipe), sm):
        near = [scheme for scheme in SCHEMES if scheme != "none" and not unfit(scheme, sm)]
        _no(f"{gpu.name}: {why}", f"nearest: --scheme {near[0]}" if near else "another GPU")
    loaded = model.weights_bytes  # quantizing loads the parent over all GPUs, too
    room = gpu.memory_gib * 2**30 * (1 - _KV_SHARE)
    if loaded > room * shape.gpus:
        needed = next((n for n in (1, 2, 4, 8) if loaded <= room * n), None)
        _no(
            f"{loaded / 1e9:.1f} GB of weights do not fit {shape.gpus} x {gpu.name} "
            f"({gpu.memory_gib} GiB each, a tenth kept for the KV cache)",
            f"nearest: --tp {needed}" if needed else "a GPU with more memory",
        )


def _no(reason: str, nearest: str) -> None:
    raise RecipeImpossible(reason, hint=nearest)


def _version(strategy: Strategy, image: RuntimeImage) -> None:
    line = f"{image.line[0]}.{image.line[1]}"
    if image.line not in KNOWN_LINES:
        known = ", ".join(f"{a}.{b}" for a, b in sorted(KNOWN_LINES))
        _no(
            f"{image}: the options of TensorRT-LLM {line} are not known here; known: {known}",
            f"nearest: {ENGINE_IMAGE}",
        )
    if strategy == "engine" and image.line > LAST_WITH_ENGINES:
        _no(
            f"{image}: trtllm-build was removed after TensorRT-LLM 1.2; {line} serves checkpoints",
            f"nearest: --strategy checkpoint with this image, or --image {ENGINE_IMAGE}",
        )


def _stages(strategy: Strategy, model: ModelFacts, recipe: Recipe) -> None:
    if model.quantized is None:
        return
    if strategy == "engine":
        _no(
            f"the checkpoint is {model.quantized} already; trtllm-build takes what quantize.py "
            "makes of the parent",
            "nearest: --strategy checkpoint, or the parent with --scheme",
        )
    if recipe.scheme not in ("none", model.quantized):
        _no(
            f"the checkpoint is {model.quantized} already, and cannot become {recipe.scheme}",
            "nearest: --scheme none, or the parent",
        )


def _lengths(model: ModelFacts, shape: Shape) -> None:
    counts = {name: getattr(shape, name) for name in Shape.__dataclass_fields__}
    for name, count in counts.items():
        if count < 1:
            _no(f"{name} is {count}", f"nearest: {name} 1")
    if shape.max_seq_len > model.max_positions:
        _no(
            f"max_seq_len {shape.max_seq_len} is more than the model's {model.max_positions} "
            "positions",
            f"nearest: --max-seq {model.max_positions}",
        )
    if shape.max_input_len >= shape.max_seq_len:
        _no(
            f"max_input_len {shape.max_input_len} leaves no room for an answer in max_seq_len "
            f"{shape.max_seq_len}",
            f"nearest: --max-input {shape.max_seq_len - 1}",
        )
    if shape.max_num_tokens < shape.max_batch_size * shape.max_beam_width:
        _no(
            f"max_num_tokens {shape.max_num_tokens} cannot hold one token of each of "
            f"{shape.max_batch_size} requests x {shape.max_beam_width} beams",
            f"nearest: --max-num-tokens {shape.max_batch_size * shape.max_beam_width}",
        )


def _parallel(model: ModelFacts, shape: Shape) -> None:
    if not _divides(model, shape.tp):
        _no(
            f"tp {shape.tp} divides {model.heads} attention heads or {model.kv_heads} key-value "
            "heads unevenly",
            f"nearest: --tp {_nearest(shape.tp, lambda tp: _divides(model, tp))}",
        )
    if shape.pp > model.layers:
        _no(f"pp {shape.pp} is more than {model.layers} layers", f"nearest: --pp {model.layers}")
    if shape.gpus > _GPUS_PER_NODE:
        tp = _nearest(shape.tp, lambda tp: tp <= _GPUS_PER_NODE and _divides(model, tp))
        _no(
            f"tp x pp is {shape.gpus} GPUs; one node has {_GPUS_PER_NODE}",
            f"nearest: --tp {tp} --pp {max(1, _GPUS_PER_NODE // tp)}",
        )


def _divides(model: ModelFacts, tp: int) -> bool:
    # fewer key-value heads than ranks are duplicated, if they go evenly
    kv = model.kv_heads % tp == 0 or tp % model.kv_heads == 0
    return model.heads % tp == 0 and kv


def _groups(model: ModelFacts, recipe: Recipe, shape: Shape) -> None:
    def fits(group: int) -> bool:
        sizes = (model.hidden_size, model.intermediate_size)
        return group > 0 and all(size % (shape.tp * group) == 0 for size in sizes)

    if not fits(recipe.group_size):
        near = next((g for g in (128, 64) if fits(g)), None)
        _no(
            f"groups of {recipe.group_size} weights do not divide {model.hidden_size} and "
            f"{model.intermediate_size} inputs over {shape.tp} GPUs",
            f"nearest: --group-size {near}" if near else "nearest: --scheme fp8, or fewer GPUs",
        )


def _nearest(wanted: int, fits: Callable[[int], bool]) -> int:
    return next(n for n in range(wanted, 0, -1) if fits(n))
