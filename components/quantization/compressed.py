"""Quantizes with llm-compressor, inside the worker; compressed-tensors on disk.

Schemes: https://github.com/vllm-project/compressed-tensors, `quantization/quant_scheme.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components.quantization.loading import Tell, batches, load
from penstock.core.recipes import W4A16, Awq, Fp8, Recipe, parse_recipe

_PRESETS = {
    "fp8-dynamic": "FP8_DYNAMIC",
    "fp8": "FP8",
    "fp8-block": "FP8_BLOCK",
    "w8a8": "INT8",
    "nvfp4": "NVFP4",
}


def make(request: Mapping[str, Any], tell: Tell) -> None:
    """Write weights and configuration as the library writes them into `request["scratch"]`."""
    from llmcompressor.entrypoints.oneshot import oneshot

    recipe = parse_recipe(request["recipe"])
    tell(1, 4, "loading")
    model = load(Path(request["parent"]), gpu=request["gpu"])
    tell(2, 4, "quantizing")
    if isinstance(recipe, Awq) and not request["gpu"]:
        _no_pinning()
    # the library's default would untie the head and save it a second time
    tied = bool(getattr(model.config, "tie_word_embeddings", False))
    oneshot(
        model=model,
        recipe=_modifier(recipe, request),
        tie_word_embeddings=tied,
        **_data(request),
    )
    tell(3, 4, "writing")
    model.save_pretrained(request["scratch"], save_compressed=True)


def _data(request: Mapping[str, Any]) -> dict[str, Any]:
    rows = batches(request)
    if not rows:
        return {}
    import torch
    from torch.utils.data import DataLoader

    tensors = [
        {"input_ids": torch.tensor([row]), "attention_mask": torch.ones((1, len(row)), dtype=int)}
        for row in rows
    ]
    return {
        "dataset": DataLoader(tensors, batch_size=None),
        "num_calibration_samples": len(rows),
    }


def _modifier(recipe: Recipe, request: Mapping[str, Any]) -> Any:
    from llmcompressor.modifiers.quantization import GPTQModifier, QuantizationModifier

    ignore = list(request["ignore"])
    if isinstance(recipe, Awq):
        from llmcompressor.modifiers.transform.awq import AWQModifier

        groups = _int4(recipe.group_size, symmetric=False)
        # AWQ only scales: what rounds comes after it
        return [AWQModifier(), QuantizationModifier(config_groups=groups, ignore=ignore)]
    if isinstance(recipe, W4A16):
        groups = _int4(recipe.group_size, symmetric=True) | _eight(request["fp8_layers"])
        kind = GPTQModifier if recipe.method == "gptq" else QuantizationModifier
        return kind(config_groups=groups, ignore=ignore)
    cache = None
    if isinstance(recipe, Fp8) and recipe.kv_cache == "fp8":
        cache = {"num_bits": 8, "type": "float", "strategy": "tensor", "symmetric": True}
    return QuantizationModifier(
        targets="Linear", scheme=_PRESETS[recipe.scheme], ignore=ignore, kv_cache_scheme=cache
    )


def _int4(group_size: int, *, symmetric: bool) -> dict[str, Any]:
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme

    weights = QuantizationArgs(
        num_bits=4, type="int", symmetric=symmetric, strategy="group", group_size=group_size
    )
    return {"group_0": QuantizationScheme(targets=["Linear"], weights=weights)}


def _eight(layers: list[str]) -> dict[str, Any]:
    """Return FP8 per channel for some layers; names win over the class `Linear`."""
    from compressed_tensors.quantization import QuantizationScheme, preset_name_to_scheme

    if not layers:
        return {}
    scheme = preset_name_to_scheme("FP8_DYNAMIC", layers)
    return {"group_1": QuantizationScheme(**scheme.model_dump())}


def _no_pinning() -> None:
    """Let AWQ run without an accelerator: there is nothing that memory could be pinned for."""
    import torch

    torch.Tensor.pin_memory = lambda self, *_, **__: self
