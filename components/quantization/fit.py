"""Can this recipe be made of this checkpoint here? Asked before anything is loaded.

Looks at config.json and the headers of the weights; loads nothing.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from components.quantization.calibration import refuse_calibration
from components.quantization.child import WORKER
from penstock.core.errors import RecipeImpossible
from penstock.core.recipes import GROUP_SIZES, Producer, Recipe
from registry.conformance.reading import WIDTHS, Checkpoint

ARCHITECTURES = (
    "LlamaForCausalLM",
    "MistralForCausalLM",
    "Qwen2ForCausalLM",
    "Qwen3ForCausalLM",
)
"""Dense decoders that both producers were tried on."""

_MIXTURE = ("num_local_experts", "num_experts", "n_routed_experts", "moe_intermediate_size")
_WIDTH_OF = {"float32": 4, "bfloat16": 2, "float16": 2, "float64": 8}

FLOOR_BYTES: dict[Producer, int] = {"llm-compressor": 1_200 << 20, "modelopt": 1_200 << 20}
"""Peak of the worker on a model of no size: interpreter, torch, library. Measured: 1,155 MiB."""

OVERHEAD = 1.3
"""Most memory above the floor, in sizes of the loaded checkpoint; GPTQ's Hessians come on top."""

_FIXED_GROUPS = {"nvfp4": 16, "fp8-block": 128}
"""Of the scheme itself; of FP8 blocks it is the activations that are in groups of 128."""

FUSED = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
"""Layers that engines compute as one, so that they must be quantized alike."""


@dataclass(frozen=True, slots=True)
class Machine:
    """Where the worker runs."""

    memory_bytes: int
    """Available to it."""

    gpu: bool = False

    worker: tuple[str, ...] = WORKER
    """Arguments of the interpreter that answer a request; see `child`."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a recipe means for a checkpoint."""

    layers: tuple[str, ...]
    """Linear layers that are quantized."""

    ignore: tuple[str, ...]
    """Linear layers that are not, by name; `lm_head` too where it has no tensor of its own."""

    fp8_layers: tuple[str, ...]
    loaded_bytes: int
    """Of the parent in memory, in its configuration's type."""

    memory_bytes: int
    """Most that the worker will need."""

    disk_bytes: int
    """Of the result, about."""


def plan(parent: Checkpoint, recipe: Recipe, prompts: Sequence[str], machine: Machine) -> Plan:
    """Return what a recipe means for a checkpoint, or say why it cannot be made.

    Raises:
        RecipeImpossible: The architecture, the layers' shapes, the patterns, the memory or the
            missing GPU do not allow it.
        DataRefused: No prompts where some are needed.
    """
    _known(parent)
    _on(machine, recipe)
    _computes(parent, recipe)
    refuse_calibration(recipe, prompts, parent.text)
    linear = linear_layers(parent)
    ignored = _matching(recipe.ignore, linear, recipe)
    if "lm_head" not in ignored:
        raise RecipeImpossible(
            f"{recipe.label}: lm_head is not in ignore"
            + (", and it is tied to the embeddings" if _tied(parent) else "")
            + ": engines expect it in 16 bits",
            hint="add lm_head to ignore",
        )
    layers = {name: shape for name, shape in linear.items() if name not in ignored}
    if not layers:
        raise RecipeImpossible(f"{recipe.label}: ignore leaves no layer to quantize")
    eight = _matching(getattr(recipe, "fp8_layers", ()), layers, recipe)
    _together(recipe, layers, ignored, eight)
    _divides(recipe, {name: shape for name, shape in layers.items() if name not in eight})
    loaded = _loaded_bytes(parent)
    needed = FLOOR_BYTES[recipe.producer] + int(OVERHEAD * loaded) + _hessians(recipe, layers)
    _in_memory(recipe, needed, loaded, machine)
    small = sum(math.prod(shape) for name, shape in layers.items() if name not in eight)
    whole = sum(math.prod(layers[name]) for name in eight)
    disk = loaded - 2 * (small + whole) + int(small * recipe.bits / 8) + whole
    return Plan(
        tuple(layers), tuple(sorted(ignored)), tuple(sorted(eight)), loaded, needed, max(disk, 0)
    )


def linear_layers(parent: Checkpoint) -> dict[str, tuple[int, ...]]:
    """Return the linear layers and their shapes (outputs, inputs); `lm_head` always among them."""
    found: dict[str, tuple[int, ...]] = {
        tensor.name.removesuffix(".weight"): tensor.shape
        for tensor in parent.tensors.values()
        if tensor.name.endswith(".weight") and len(tensor.shape) == 2 and "embed" not in tensor.name
    }
    return found | {"lm_head": found.get("lm_head", (0, 0))}


def groups_of(layers: Sequence[str]) -> list[tuple[str, ...]]:
    """Return the layers in groups that must be quantized alike, in the model's order."""
    found: dict[str, list[str]] = {}
    for name in layers:
        stem, _, last = name.rpartition(".")
        fused = next((f"{stem}.{'+'.join(f)}" for f in FUSED if last in f), name)
        found.setdefault(fused, []).append(name)
    return [tuple(names) for _, names in sorted(found.items(), key=lambda item: _order(item[0]))]


def fitting_group_size(parent: Checkpoint, wanted: int) -> int | None:
    """Return the largest group size up to `wanted` that divides every layer; None if none does."""
    inputs = {s[1] for name, s in linear_layers(parent).items() if name != "lm_head"}
    fitting = [g for g in GROUP_SIZES if g <= wanted and all(i % g == 0 for i in inputs)]
    return max(fitting, default=None)


def _order(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", name)]


def _known(parent: Checkpoint) -> None:
    names = parent.config.get("architectures") or ["none stated"]
    experts = [key for key in _MIXTURE if (parent.text.get(key) or 0) > 0]
    if experts:
        raise RecipeImpossible(
            f"{parent.folder}: {names[0]} is a mixture of experts ({experts[0]}="
            f"{parent.text[experts[0]]}); only dense models can be quantized here",
            hint="serve it as it is, or take a checkpoint that its author quantized",
        )
    if names[0] not in ARCHITECTURES:
        raise RecipeImpossible(
            f"{parent.folder}: architecture {names[0]} was never tried; "
            f"allowed: {', '.join(ARCHITECTURES)}",
            hint="serve it as it is, or take a checkpoint that its author quantized",
        )
    if parent.quantization or parent.modelopt:
        method = parent.quantization.get("quant_method", "modelopt")
        raise RecipeImpossible(
            f"{parent.folder}: is quantized already ({method}); allowed: 16 or 32 bits",
            hint="quantize the checkpoint that it was made from",
        )


def _on(machine: Machine, recipe: Recipe) -> None:
    if recipe.name == "modelopt-nvfp4" and not machine.gpu:
        raise RecipeImpossible(
            f"{recipe.label}: needs a GPU: ModelOpt calibrates NVFP4 with CUDA kernels only",
            hint="run this in the quantization image on a GPU node, or choose nvfp4",
        )


def _matching(
    patterns: Sequence[str], layers: Mapping[str, object], recipe: Recipe
) -> frozenset[str]:
    found = {p: [n for n in layers if fnmatchcase(n, p)] for p in patterns}
    nothing = [p for p, names in found.items() if not names]
    if nothing:
        some = ", ".join(list(layers)[:3])
        raise RecipeImpossible(
            f"{recipe.label}: {nothing[0]!r} matches no layer; layers are called {some}, ...",
            hint="correct the pattern: `*` matches any text",
        )
    return frozenset(name for names in found.values() for name in names)


def _together(
    recipe: Recipe, layers: Mapping[str, object], ignored: frozenset[str], eight: frozenset[str]
) -> None:
    for group in groups_of([*layers, *ignored]):
        kinds = {"ignored" if n in ignored else "fp8" if n in eight else "small" for n in group}
        if len(kinds) > 1:
            raise RecipeImpossible(
                f"{recipe.label}: {', '.join(group)} are computed as one layer by engines, so "
                "they must be quantized alike",
                hint="name all of them, or none",
            )


def _divides(recipe: Recipe, layers: Mapping[str, tuple[int, ...]]) -> None:
    fixed = next((size for name, size in _FIXED_GROUPS.items() if name in recipe.name), None)
    size = getattr(recipe, "group_size", fixed)
    odd = [(name, s[1]) for name, s in layers.items() if size and s[1] % size]
    if not odd:
        return
    told = (
        f"{recipe.label}: groups of {size} do not divide the {odd[0][1]} inputs of {odd[0][0]} "
        f"({len(odd)} such layers)"
    )
    if fixed:
        raise RecipeImpossible(told, hint="add those layers to ignore, or choose fp8")
    fitting = [g for g in GROUP_SIZES if all(s[1] % g == 0 for s in layers.values())]
    raise RecipeImpossible(
        f"{told}; group sizes that do: {' or '.join(map(str, fitting)) or 'none'}",
        hint=f"set group_size to {fitting[-1]}" if fitting else "add those layers to ignore",
    )


def _computes(parent: Checkpoint, recipe: Recipe) -> None:
    """NVFP4 is unpacked to bfloat16 whatever the model computes in (compressed-tensors 0.19)."""
    named = _dtype(parent)
    if recipe.name == "nvfp4" and named != "bfloat16":
        raise RecipeImpossible(
            f"{recipe.label}: the model computes in {named or 'an unstated type'}; "
            "allowed: bfloat16",
            hint="choose fp8 or int4, or save the checkpoint in bfloat16 first",
        )


def _dtype(parent: Checkpoint) -> str:
    return str(parent.text.get("dtype") or parent.text.get("torch_dtype") or "")


def _loaded_bytes(parent: Checkpoint) -> int:
    width = _WIDTH_OF.get(_dtype(parent))
    return sum(
        math.prod(t.shape) * (width or WIDTHS.get(t.dtype, 2)) for t in parent.tensors.values()
    )


def _in_memory(recipe: Recipe, needed: int, loaded: int, machine: Machine) -> None:
    if needed > machine.memory_bytes:
        raise RecipeImpossible(
            f"{recipe.label}: needs about {needed / 1e9:.1f} GB of memory "
            f"({loaded / 1e9:.1f} GB of weights), {machine.memory_bytes / 1e9:.1f} GB are free",
            hint="free memory, or quantize on a larger machine",
        )


def _hessians(recipe: Recipe, layers: Mapping[str, tuple[int, ...]]) -> int:
    """Return the bytes of GPTQ's float32 matrices: one per layer of a block, two more at most.

    Source: llmcompressor, `modifiers/gptq/gptq_quantize.py`: the Hessian, its factor, its inverse.
    """
    if getattr(recipe, "method", "") != "gptq":
        return 0
    by_kind = {name.rpartition(".")[2]: shape[1] for name, shape in layers.items()}
    inputs = list(by_kind.values())
    return 4 * (sum(i * i for i in inputs) + 2 * max(inputs) ** 2)


def _tied(parent: Checkpoint) -> bool:
    return bool(parent.text.get("tie_word_embeddings")) or "lm_head.weight" not in parent.tensors
