"""What each stage must have left behind; a builder that says nothing is not believed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from components.trtllm.key import BuildKey
from components.trtllm.model import ALGORITHMS
from penstock.core.errors import BuildFailed

_ALIKE = ("max_batch_size", "max_input_len", "max_seq_len", "max_num_tokens", "max_beam_width")


def check(output: str, folder: Path, key: BuildKey) -> None:
    """Raise `BuildFailed` unless a stage's folder holds what its key says."""
    if output == "engine":
        _ranks(folder, "rank{}.engine", key)
        config = _config(folder)
        built = config.get("build_config", {})
        wrong = [
            f"{name} is {built.get(name)}, not {getattr(key.shape, name)}"
            for name in _ALIKE
            if built.get(name) != getattr(key.shape, name)
        ]
        _mapping(folder, config.get("pretrained_config", {}), key)
        if wrong:
            raise BuildFailed(f"{folder}: config.json: {'; '.join(wrong)}")
    elif output == "trtllm_checkpoint":
        _ranks(folder, "rank{}.safetensors", key)
        _mapping(folder, _config(folder), key)
    else:
        _exported(folder, key)


def _config(folder: Path, name: str = "config.json") -> dict[str, Any]:
    try:
        body = json.loads((folder / name).read_text())
    except (OSError, ValueError) as problem:
        raise BuildFailed(f"{folder}: {name}: {problem}") from problem
    if not isinstance(body, dict):
        raise BuildFailed(f"{folder}: {name}: not an object")
    return body


def _ranks(folder: Path, form: str, key: BuildKey) -> None:
    wanted = {form.format(rank) for rank in range(key.shape.gpus)}
    found = {path.name for path in folder.glob(form.format("*")) if path.stat().st_size}
    if found != wanted:
        told = ", ".join(sorted(found)) or "no ranks"
        raise BuildFailed(f"{folder}: has {told}, not {', '.join(sorted(wanted))}")


def _mapping(folder: Path, config: dict[str, Any], key: BuildKey) -> None:
    mapping = config.get("mapping", {})
    found = (mapping.get("tp_size"), mapping.get("pp_size"))
    if found != (key.shape.tp, key.shape.pp):
        raise BuildFailed(f"{folder}: made for tp, pp {found}, not {(key.shape.tp, key.shape.pp)}")
    _scheme(folder, config.get("quantization") or {}, key)


def _exported(folder: Path, key: BuildKey) -> None:
    _config(folder)
    if not any(path.stat().st_size for path in folder.glob("*.safetensors")):
        raise BuildFailed(f"{folder}: no weights (*.safetensors)")
    _scheme(folder, _config(folder, "hf_quant_config.json").get("quantization") or {}, key)


def _scheme(folder: Path, quantization: dict[str, Any], key: BuildKey) -> None:
    algorithm = quantization.get("quant_algo")
    if algorithm != ALGORITHMS.get(key.scheme):
        raise BuildFailed(f"{folder}: quant_algo is {algorithm}, wanted is {key.scheme}")
