"""What cannot be built or served, why, and what is nearest to it. Pure."""

from __future__ import annotations

from collections.abc import Callable

from components.trtllm.documented import ENGINE_IMAGE, KNOWN_LINES, LAST_WITH_ENGINES
from components.trtllm.model import (
    ENGINE,
    PRECISION_OF,
    SCHEME_OF,
    Build,
    ModelFacts,
    RuntimeImage,
    Scheme,
    Shape,
    Strategy,
)
from penstock.core import matrix
from penstock.core.errors import RecipeImpossible
from penstock.core.recipes import DEFAULTS, Calibration, Recipe

_GPUS_PER_NODE = 8
"""More ranks need MPI across nodes, which no command here starts."""

_KV_SHARE = 0.1
"""Of a GPU's memory; with less left for the KV cache a start is not worth trying. An estimate."""


def refuse(build: Build) -> None:
    """Raise `RecipeImpossible` for what no GPU could help."""
    _version(build.strategy, build.image)
    _stages(build)
    if build.recipe is not None:
        _options(build.recipe)
    _lengths(build.model, build.shape)
    _parallel(build.model, build.shape)
    if build.group_size:
        _groups(build)


def unfit(scheme: Scheme, version: str, gpu: str) -> str:
    """Return why a GPU cannot run a scheme under TensorRT-LLM; empty when it can."""
    fit = matrix.judge(PRECISION_OF[scheme], ENGINE, version, gpu)
    return "" if fit.ok else f"{PRECISION_OF[scheme]}: {fit.reason}"


def refuse_gpu(build: Build) -> None:
    """Raise `RecipeImpossible` when the GPU cannot run the scheme, or holds too little."""
    shape, gpu, version = build.shape, build.gpu, build.image.tag
    if why := unfit(build.served_scheme, version, gpu.name):
        runs = [n for n in matrix.possible(ENGINE, version, gpu.name) if n in SCHEME_OF]
        _no(f"{gpu.name}: {why}", f"nearest: --precision {runs[0]}" if runs else "another GPU")
    loaded = build.model.weights_bytes  # quantizing loads the parent over all GPUs, too
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


def _stages(build: Build) -> None:
    quantized = build.model.quantized
    if quantized is None:
        return
    if build.strategy == "engine":
        _no(
            f"the checkpoint is {quantized} already; trtllm-build takes what quantize.py makes of "
            "the parent",
            "nearest: --strategy checkpoint, or the parent with --precision",
        )
    if build.scheme not in ("none", quantized):
        _no(
            f"the checkpoint is {quantized} already, and cannot become {build.scheme}",
            f"nearest: --precision {PRECISION_OF['none']}, or the parent",
        )


def _options(recipe: Recipe) -> None:
    """Refuse what quantize.py has no option for."""
    if recipe.ignore != DEFAULTS[recipe.name].ignore:
        _no(
            f"{recipe.label}: quantize.py has no option for layers to ignore",
            "nearest: leave ignore out",
        )
    asked: Calibration = getattr(recipe, "calibration", Calibration())
    if asked.length != Calibration().length:
        _no(
            f"{recipe.label}: prompts of {asked.length} tokens; quantize.py is run with its own "
            f"{Calibration().length}",
            "nearest: leave calibration.length out",
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


def _groups(build: Build) -> None:
    model, shape, group_size = build.model, build.shape, build.group_size

    def fits(group: int) -> bool:
        sizes = (model.hidden_size, model.intermediate_size)
        return all(size % (shape.tp * group) == 0 for size in sizes)

    if not fits(group_size):
        near = next((group for group in (128, 64) if fits(group)), None)
        _no(
            f"groups of {group_size} weights do not divide {model.hidden_size} and "
            f"{model.intermediate_size} inputs over {shape.tp} GPUs",
            f"nearest: group_size {near} of the recipe"
            if near
            else f"nearest: --precision {PRECISION_OF['fp8']}, or fewer GPUs",
        )


def _nearest(wanted: int, fits: Callable[[int], bool]) -> int:
    return next(n for n in range(wanted, 0, -1) if fits(n))
