"""Quantizes with ModelOpt, inside the worker; what TensorRT-LLM reads.

Configurations: https://github.com/NVIDIA/TensorRT-Model-Optimizer, `modelopt/torch/quantization`.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from components.quantization.calibration import calibration_of
from components.quantization.loading import Tell, batches, load
from penstock.core.recipes import ModelOptInt4Awq, ModelOptW4A8Awq, Recipe, parse_recipe

_CONFIGS = {
    "modelopt-fp8": "FP8_DEFAULT_CFG",
    "modelopt-int4-awq": "INT4_AWQ_CFG",
    "modelopt-w4a8-awq": "W4A8_AWQ_BETA_CFG",
    "modelopt-nvfp4": "NVFP4_DEFAULT_CFG",
}


def make(request: Mapping[str, Any], tell: Tell) -> None:
    """Write weights and configuration as the library writes them into `request["scratch"]`."""
    import torch
    from modelopt.torch.export import export_hf_checkpoint
    from modelopt.torch.quantization import quantize

    recipe = parse_recipe(request["recipe"])
    tell(1, 4, "loading")
    model = load(Path(request["parent"]), gpu=request["gpu"])

    wanted = calibration_of(recipe)
    rows = packed(batches(request), wanted.length if wanted else 1)

    def calibrate(model: Any) -> None:
        with torch.inference_mode():
            for row in rows:
                model(torch.tensor([row], device=model.device), use_cache=False)

    tell(2, 4, "quantizing")
    quantize(model, _config(recipe, request["ignore"]), forward_loop=calibrate)
    tell(3, 4, "writing")
    export_hf_checkpoint(model, export_dir=request["scratch"])


def packed(rows: Sequence[Sequence[int]], length: int) -> list[list[int]]:
    """Return the prompts one after another in rows of at most `length` token ids.

    AWQ rounds every weight a dozen times per pass, whatever the pass holds: few full rows cost a
    fraction of many short ones. No prompt is torn.
    """
    found: list[list[int]] = []
    for row in rows:
        if found and len(found[-1]) + len(row) <= length:
            found[-1].extend(row)
        else:
            found.append(list(row))
    return found


def _config(recipe: Recipe, ignore: list[str]) -> dict[str, Any]:
    import modelopt.torch.quantization as mtq

    config: dict[str, Any] = copy.deepcopy(getattr(mtq, _CONFIGS[recipe.scheme]))
    rules: list[dict[str, Any]] = config["quant_cfg"]
    if isinstance(recipe, ModelOptInt4Awq | ModelOptW4A8Awq):
        for rule in rules:
            stages = rule.get("cfg") or []
            for stage in stages if isinstance(stages, list) else [stages]:
                if "block_sizes" in stage:
                    stage["block_sizes"][-1] = recipe.group_size
    if getattr(recipe, "kv_cache", "none") == "fp8":
        rules += copy.deepcopy(mtq.FP8_KV_CFG["quant_cfg"])
    rules += [{"quantizer_name": f"*{name}.*", "enable": False} for name in ignore]
    return config
