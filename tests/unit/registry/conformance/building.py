"""Small checkpoints in every format, written tensor by tensor: one Llama layer, 128 wide."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path
from typing import Any

import numpy as np

SKILLS = Path("examples/skills/model")
WIDTH, ROWS = 256, 64
Tensors = dict[str, tuple[str, tuple[int, ...], bytes]]
_BYTES = {"F8_E4M3": 1, "U8": 1, "I8": 1, "BF16": 2, "F16": 2, "F32": 4, "I32": 4, "I64": 8}
_PROJECTIONS = [
    f"model.layers.{i}.{part}" for i in (0, 1) for part in ("self_attn.q_proj", "mlp.down_proj")
]


def plain(folder: Path) -> Path:
    """Copies the example model: a healthy checkpoint with a real tokenizer."""
    shutil.copytree(SKILLS, folder)
    return folder


def quantized(folder: Path, scheme: str) -> Path:
    """Writes a healthy checkpoint of a scheme; configuration and tokenizer are the example's."""
    shutil.copytree(SKILLS, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    tensors: Tensors = {"model.embed_tokens.weight": filled("BF16", (640, WIDTH))}
    for module in _PROJECTIONS:
        tensors |= {f"{module}.{kind}": value for kind, value in _SCHEMES[scheme][0].items()}
    write(folder / "model.safetensors", tensors)
    edit(folder / "config.json", quantization_config=_SCHEMES[scheme][1])
    if scheme.startswith("modelopt"):
        inner = {
            "quant_algo": _SCHEMES[scheme][1]["quant_algo"],
            "kv_cache_quant_algo": None,
            "group_size": {"modelopt-fp8": None, "modelopt-nvfp4": 16}.get(scheme, 128),
            "exclude_modules": ["lm_head"],
        }
        body = {"producer": {"name": "modelopt", "version": "0.47.0"}, "quantization": inner}
        (folder / "hf_quant_config.json").write_text(json.dumps(body))
    return folder


def filled(
    dtype: str, shape: tuple[int, ...], byte: int = 0x3C
) -> tuple[str, tuple[int, ...], bytes]:
    """Returns a tensor whose bytes are all the same: 0x3C3C... is a small number in every type."""
    return dtype, shape, bytes([byte]) * (_BYTES[dtype] * int(np.prod(shape)))


def write(path: Path, tensors: Tensors) -> None:
    """Writes a safetensors file."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, (dtype, shape, raw) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(raw)]}
        at += len(raw)
    head = json.dumps(header).encode()
    path.write_bytes(
        struct.pack("<Q", len(head)) + head + b"".join(raw for *_, raw in tensors.values())
    )


def load(path: Path) -> Tensors:
    """Returns what `write` wrote."""
    raw = path.read_bytes()
    length = struct.unpack("<Q", raw[:8])[0]
    header = json.loads(raw[8 : 8 + length])
    header.pop("__metadata__", None)
    found: Tensors = {}
    for name, entry in header.items():
        start, end = (8 + length + at for at in entry["data_offsets"])
        found[name] = (entry["dtype"], tuple(entry["shape"]), raw[start:end])
    return found


def edit(path: Path, **changes: object) -> None:
    """Changes fields of a JSON file; None removes one."""
    body = json.loads(path.read_text())
    for name, value in changes.items():
        body.pop(name, None)
        if value is not None:
            body[name] = value
    path.write_text(json.dumps(body))


def change(folder: Path, *, drop: str = "", **replaced: tuple[str, tuple[int, ...], bytes]) -> None:
    """Drops tensors whose name ends so, and replaces those whose last part is named."""
    path = folder / "model.safetensors"
    tensors = load(path)
    kept = {
        name: replaced.get(name.rpartition(".")[2], value)
        for name, value in tensors.items()
        if not (drop and name.endswith(drop))
    }
    write(path, kept)


def _shape() -> tuple[str, tuple[int, ...], bytes]:
    return "I64", (2,), struct.pack("<qq", ROWS, WIDTH)


def _ct(weights: dict[str, Any], inputs: dict[str, Any] | None, layout: str) -> dict[str, Any]:
    group = {"targets": ["Linear"], "weights": weights, "input_activations": inputs}
    return {
        "quant_method": "compressed-tensors",
        "format": layout,
        "config_groups": {"group_0": group},
        "ignore": ["lm_head"],
    }


_FP8 = {"num_bits": 8, "type": "float", "symmetric": True}
_INT4 = {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 128}
_FP4 = {"num_bits": 4, "type": "float", "strategy": "tensor_group", "group_size": 16}
_ONE = filled("F32", (1,))
_PACKED = {
    "weight_packed": filled("I32", (ROWS, WIDTH // 8)),
    "weight_scale": filled("BF16", (ROWS, WIDTH // 128)),
    "weight_shape": _shape(),
}
_SCHEMES: dict[str, tuple[dict[str, tuple[str, tuple[int, ...], bytes]], dict[str, Any]]] = {
    "fp8-dynamic": (
        {
            "weight": filled("F8_E4M3", (ROWS, WIDTH)),
            "weight_scale": filled("BF16", (ROWS, 1)),
        },
        _ct(
            {**_FP8, "strategy": "channel"},
            {**_FP8, "strategy": "token", "dynamic": True},
            "float-quantized",
        ),
    ),
    "fp8": (
        {
            "weight": filled("F8_E4M3", (ROWS, WIDTH)),
            "weight_scale": filled("BF16", (1,)),
            "input_scale": filled("BF16", (1,)),
        },
        _ct(
            {**_FP8, "strategy": "tensor"},
            {**_FP8, "strategy": "tensor", "dynamic": False},
            "float-quantized",
        ),
    ),
    "fp8-block": (
        {
            "weight": filled("F8_E4M3", (ROWS, WIDTH)),
            "weight_scale": filled("BF16", (1, 2)),
        },
        _ct(
            {**_FP8, "strategy": "block", "block_structure": [128, 128]},
            {**_FP8, "strategy": "group", "group_size": 128, "dynamic": True},
            "float-quantized",
        ),
    ),
    "w4a16": (_PACKED, _ct({**_INT4, "symmetric": True}, None, "pack-quantized")),
    "awq": (
        {**_PACKED, "weight_zero_point": filled("I32", (ROWS // 8, WIDTH // 128))},
        _ct({**_INT4, "symmetric": False}, None, "pack-quantized"),
    ),
    "w8a8": (
        {"weight": filled("I8", (ROWS, WIDTH)), "weight_scale": filled("BF16", (ROWS, 1))},
        _ct(
            {"num_bits": 8, "type": "int", "strategy": "channel", "symmetric": True},
            {"num_bits": 8, "type": "int", "strategy": "token", "dynamic": True},
            "int-quantized",
        ),
    ),
    "nvfp4": (
        {
            "weight_packed": filled("U8", (ROWS, WIDTH // 2)),
            "weight_scale": filled("F8_E4M3", (ROWS, WIDTH // 16)),
            "weight_global_scale": _ONE,
            "input_global_scale": _ONE,
        },
        _ct(_FP4, {**_FP4, "dynamic": "local"}, "nvfp4-pack-quantized"),
    ),
    "modelopt-fp8": (
        {
            "weight": filled("F8_E4M3", (ROWS, WIDTH)),
            "weight_scale": filled("F32", ()),
            "input_scale": filled("F32", ()),
        },
        {"quant_method": "modelopt", "quant_algo": "FP8"},
    ),
    "modelopt-int4-awq": (
        {
            "weight": filled("U8", (ROWS // 2, WIDTH)),
            "weight_scale": filled("F32", (ROWS, WIDTH // 128)),
            "pre_quant_scale": filled("BF16", (WIDTH,)),
        },
        {"quant_method": "modelopt", "quant_algo": "W4A16_AWQ"},
    ),
    "modelopt-w4a8-awq": (
        {
            "weight": filled("U8", (ROWS // 2, WIDTH)),
            "weight_scale": filled("F32", (ROWS, WIDTH // 128)),
            "weight_scale_2": filled("F32", ()),
            "input_scale": filled("F32", ()),
        },
        {"quant_method": "modelopt", "quant_algo": "W4A8_AWQ"},
    ),
    "modelopt-nvfp4": (
        {
            "weight": filled("U8", (ROWS, WIDTH // 2)),
            "weight_scale": filled("F8_E4M3", (ROWS, WIDTH // 16)),
            "weight_scale_2": filled("F32", ()),
            "input_scale": filled("F32", ()),
        },
        {"quant_method": "modelopt", "quant_algo": "NVFP4"},
    ),
}
SCHEMES = tuple(_SCHEMES)
