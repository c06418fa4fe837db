"""Has every quantized weight what is needed to undo the quantization?

Names and shapes: compressed-tensors 0.19 and ModelOpt 0.47, as they write a dense Llama.
"""

from __future__ import annotations

import fnmatch
import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from registry.conformance.findings import Finding, error, some, warning
from registry.conformance.reading import Checkpoint, Tensor
from registry.conformance.schemes import Scheme, scheme_of

_LOW = ("F8_E4M3", "F8_E5M2", "I8", "U8")
_LEFT_BEHIND = (".weight_scale", ".weight_scale_inv", ".weight_scale_2", ".weight_packed")
_AGAIN = "quantize the parent again; do not repair this by hand"


def modelopt(checkpoint: Checkpoint) -> Iterator[Finding]:
    """Find ModelOpt's format, which transformers loads without its scales."""
    method = str(checkpoint.quantization.get("quant_method", ""))
    if checkpoint.modelopt or method.startswith("modelopt"):
        yield warning(
            "modelopt",
            "hf_quant_config.json" if checkpoint.modelopt else "config.json: quantization_config",
            "ModelOpt's format: transformers loads the weights without their scales, and answers"
            " fluently and wrongly",
            "serve it with TensorRT-LLM or vLLM; for transformers quantize with compressed-tensors",
            engines=("huggingface", "cpu"),
        )


def sources(checkpoint: Checkpoint) -> Iterator[Finding]:
    """Compare hf_quant_config.json with config.json: engines differ in which of them they read."""
    inner: Mapping[str, Any] = checkpoint.modelopt.get("quantization") or checkpoint.modelopt
    other = checkpoint.quantization
    if not inner or not other:
        return
    names = ("quant_algo", inner.get("quant_algo"), other.get("quant_algo"))
    ignored = (
        "ignored modules",
        sorted(inner.get("exclude_modules") or inner.get("ignore") or []),
        sorted(other.get("ignore") or []),
    )
    for what, one, two in (names, ignored):
        if two and one != two:
            told = f"{what}: {one}; config.json says {two}, and engines read either"
            yield error("quantization-contradiction", "hf_quant_config.json", told, _AGAIN)


def declared(checkpoint: Checkpoint) -> Iterator[Finding]:
    """Compare what the configuration says about quantization with the tensors."""
    said = bool(checkpoint.quantization or checkpoint.modelopt)
    packed = sorted(modules(checkpoint))
    scales = sorted(n for n in checkpoint.tensors if n.endswith(_LEFT_BEHIND))
    if not said and (scales or packed):
        yield error(
            "quantization-undeclared",
            "config.json",
            f"no quantization_config, but {some(scales or packed)} is quantized: loaded without"
            " scales, or not at all",
            "write the quantization_config that belongs to the weights",
        )
    if said and not packed and checkpoint.tensors:
        yield error(
            "quantization-unreal",
            "config.json: quantization_config",
            "no weight is quantized",
            "remove it, or take the quantized weights",
        )
    half = sorted(_left_out(checkpoint)) if said else []
    if half:
        yield error(
            "half-quantized",
            half[0],
            f"{some(half)} is not quantized, its namesakes in other layers are, and it is not"
            " ignored: engines expect scales there",
            _AGAIN,
        )


def modules(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """Return module → its quantized weight."""
    found = {}
    for name, tensor in checkpoint.tensors.items():
        module, _, kind = name.rpartition(".")
        if kind == "weight_packed" or (kind == "weight" and tensor.dtype in _LOW):
            found[module] = tensor
    return found


def _left_out(checkpoint: Checkpoint) -> Iterator[str]:
    kinds = {module.rpartition(".")[2] for module in modules(checkpoint)}
    ignored = _ignored(checkpoint)
    for name, tensor in checkpoint.tensors.items():
        module, _, kind = name.rpartition(".")
        alike = module.rpartition(".")[2] in kinds
        if kind == "weight" and tensor.dtype not in _LOW and alike and not ignored(module):
            yield name


def _ignored(checkpoint: Checkpoint) -> Callable[[str], bool]:
    inner: Mapping[str, Any] = checkpoint.modelopt.get("quantization") or checkpoint.modelopt
    entries = [
        *(checkpoint.quantization.get("ignore") or []),
        *(inner.get("exclude_modules") or []),
        *(inner.get("ignore") or []),
    ]

    def matches(module: str) -> bool:
        return any(
            re.match(entry[3:], module)
            if entry.startswith("re:")
            else module == entry or fnmatch.fnmatchcase(module, entry)
            for entry in entries
        )

    return matches


def companions(checkpoint: Checkpoint) -> Iterator[Finding]:
    """Find quantized weights without the tensors that their scheme needs."""
    lacking: dict[str, list[str]] = {}
    for module, weight in sorted(modules(checkpoint).items()):
        scheme = scheme_of(checkpoint, weight)
        for kind in scheme.needs:
            spellings = (kind, "weight_scale_inv") if kind == "weight_scale" else (kind,)
            if not any(f"{module}.{each}" in checkpoint.tensors for each in spellings):
                lacking.setdefault(kind, []).append(module)
    for kind, names in lacking.items():
        yield error(
            "missing-scale",
            f"{names[0]}.{kind}",
            f"missing for {some(names)}: engines take 1.0, or leave it uninitialized",
            _AGAIN,
        )


def shapes(checkpoint: Checkpoint) -> Iterator[Finding]:
    """Find packed weights and scales whose shapes do not belong together."""
    for module, weight in sorted(modules(checkpoint).items()):
        scheme = scheme_of(checkpoint, weight)
        size = _unpacked(checkpoint, module, weight, scheme)
        problem = size if isinstance(size, str) else _misfit(checkpoint, module, size, scheme)
        if problem:
            yield error("packed-shape", module, problem, _AGAIN)
            return  # one names the mistake; the others repeat it


def _unpacked(
    checkpoint: Checkpoint, module: str, weight: Tensor, scheme: Scheme
) -> tuple[int, int] | str:
    """Return (outputs, inputs) of the weight before it was packed, or what is wrong with it."""
    if len(weight.shape) != 2:
        return f"a weight of shape {weight.shape}; two dimensions are needed"
    rows, columns = weight.shape[0] * scheme.rows_per, weight.shape[1] * scheme.columns_per
    recorded = checkpoint.tensors.get(f"{module}.weight_shape")
    if recorded is None:
        return rows, columns
    raw = b"".join(recorded.chunks())
    step = len(raw) // 2
    told = int.from_bytes(raw[:step], "little"), int.from_bytes(raw[step:], "little")
    if rows != told[0] or math.ceil(told[1] / scheme.columns_per) != weight.shape[1]:
        return f"packed {weight.shape} holds {(rows, columns)}, weight_shape says {told}"
    return told


def _misfit(checkpoint: Checkpoint, module: str, size: tuple[int, int], scheme: Scheme) -> str:
    scale = checkpoint.tensors.get(f"{module}.weight_scale") or checkpoint.tensors.get(
        f"{module}.weight_scale_inv"
    )
    if scale is None:
        return ""
    if scheme.strategy == "group" and scheme.group and size[1] % scheme.group:
        return f"{size[1]} inputs do not divide into groups of {scheme.group}"
    wanted = scheme.scale_shapes(size)
    found = tuple(n for n in scale.shape if n != 1)  # writers differ in dimensions of one
    if wanted and found not in {tuple(n for n in w if n != 1) for w in wanted}:
        told = " or ".join(str(w) for w in wanted)
        return f"weight_scale has shape {scale.shape}, {told} fits {scheme.strategy} {size}"
    return ""
