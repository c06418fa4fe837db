"""What a quantization scheme needs beside a weight, and in which shapes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from registry.conformance.reading import Checkpoint, Tensor


@dataclass(frozen=True, slots=True)
class Scheme:
    """How one weight was quantized."""

    strategy: str
    """`tensor`, `channel`, `group`, `block`; empty: not known, so shapes are not judged."""

    group: int = 0
    """Inputs that share a scale."""

    rows_per: int = 1
    """Outputs in one stored row."""

    columns_per: int = 1
    """Inputs in one stored element."""

    needs: tuple[str, ...] = ("weight_scale",)
    """Tensors that must lie beside the weight."""

    def scale_shapes(self, size: tuple[int, int]) -> list[tuple[int, ...]]:
        """Return the shapes of weight_scale that fit a weight of (outputs, inputs)."""
        outputs, inputs = size
        if self.strategy == "tensor":
            return [()]
        if self.strategy == "channel":
            return [(outputs,)]
        if self.strategy == "group" and self.group:
            return [(outputs, math.ceil(inputs / self.group))]
        if self.strategy == "block":
            return [(math.ceil(outputs / self.group), math.ceil(inputs / self.group))]
        return []


_MODELOPT: dict[str, Scheme] = {
    "FP8": Scheme("tensor", needs=("weight_scale", "input_scale")),
    "FP8_PER_CHANNEL_PER_TOKEN": Scheme("channel"),
    "FP8_PB_WO": Scheme("block", 128),
    "W4A16_AWQ": Scheme("group", 128, rows_per=2),
    "W4A8_AWQ": Scheme(
        "group", 128, rows_per=2, needs=("weight_scale", "weight_scale_2", "input_scale")
    ),
    "NVFP4": Scheme(
        "group", 16, columns_per=2, needs=("weight_scale", "weight_scale_2", "input_scale")
    ),
}
"""By `quant_algo`, the names of NVIDIA's hf_quant_config.json. A `group_size` in it wins."""


def scheme_of(checkpoint: Checkpoint, weight: Tensor) -> Scheme:
    """Return how a weight was quantized, as far as the configuration says."""
    inner: Mapping[str, Any] = checkpoint.modelopt.get("quantization") or checkpoint.modelopt
    algorithm = inner.get("quant_algo") or checkpoint.quantization.get("quant_algo")
    if algorithm:
        known = _MODELOPT.get(str(algorithm).upper(), Scheme(""))
        return replace(known, group=int(inner.get("group_size") or known.group))
    groups = checkpoint.quantization.get("config_groups") or {}
    if len(groups) != 1:  # none, or mixed: which group owns a module is the engine's business
        return Scheme("", columns_per=_packing(weight, 4))
    group: Mapping[str, Any] = next(iter(groups.values()))
    return _compressed(group.get("weights") or {}, group.get("input_activations") or {}, weight)


def _compressed(weights: Mapping[str, Any], inputs: Mapping[str, Any], weight: Tensor) -> Scheme:
    needs = ["weight_scale"]
    strategy, bits = str(weights.get("strategy", "")), int(weights.get("num_bits", 8))
    static = bool(inputs) and inputs.get("dynamic") is False
    if weight.name.endswith("weight_packed") and weight.dtype == "I32":
        needs.append("weight_shape")
    if weights.get("symmetric") is False:
        needs.append("weight_zero_point")
    if strategy == "tensor_group":  # NVFP4: a scale per group, and one for them all
        needs.append("weight_global_scale")
        if inputs:
            needs.append("input_global_scale")
    elif static:
        needs.append("input_scale")
    group = int(weights.get("group_size") or 0)
    if strategy == "block":
        group = int((weights.get("block_structure") or [128])[0])
    kind = {"tensor_group": "group"}.get(strategy, strategy)
    packing = _packing(weight, bits)
    return Scheme(kind, group, columns_per=packing, needs=tuple(needs))


def _packing(weight: Tensor, bits: int) -> int:
    """Return how many weights one stored element holds."""
    if not weight.name.endswith("weight_packed"):
        return 1
    return {"I32": 32, "U8": 8}.get(weight.dtype, bits) // bits
