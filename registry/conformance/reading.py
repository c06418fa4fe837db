"""Reads of a checkpoint folder what inspections need: JSON files, headers, single tensors.

Format of the weights: https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from penstock.core.errors import CheckpointBroken, ConfigurationError
from registry.conformance.findings import Finding, error

_HEADER_LIMIT_BYTES = 100_000_000  # the format's own limit
_CHUNK_BYTES = 1 << 20

_BY_WIDTH = {
    1: "BOOL U8 I8 F8_E4M3 F8_E5M2 F8_E8M0",
    2: "I16 U16 F16 BF16",
    4: "I32 U32 F32",
    8: "I64 U64 F64",
}
WIDTHS = {name: width for width, names in _BY_WIDTH.items() for name in names.split()}
"""Bytes per element of the format's types."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """Where a tensor lies, without its values."""

    name: str
    file: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    """Offset of the first byte in the file."""
    size: int
    """Bytes."""

    def chunks(self) -> Iterator[bytes]:
        """Yield the values as they lie, a mebibyte at a time."""
        with self.file.open("rb") as file:
            file.seek(self.start)
            left = self.size
            while left > 0:
                piece = file.read(min(left, _CHUNK_BYTES))
                if not piece:
                    return
                left -= len(piece)
                yield piece


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a folder says about itself."""

    folder: Path
    config: Mapping[str, Any]
    generation: Mapping[str, Any]
    tokenizer: Mapping[str, Any]
    """tokenizer.json."""
    tokenizer_config: Mapping[str, Any]
    modelopt: Mapping[str, Any]
    """hf_quant_config.json; empty where there is none."""
    index: Mapping[str, Any]
    """model.safetensors.index.json; empty where there is none."""
    tensors: Mapping[str, Tensor]
    damaged: tuple[Finding, ...] = field(default=())
    """Files that are not what their names say."""

    @property
    def text(self) -> Mapping[str, Any]:
        """The configuration of the language model, inside a multimodal one too."""
        inner = self.config.get("text_config")
        return inner if isinstance(inner, Mapping) else self.config

    @property
    def quantization(self) -> Mapping[str, Any]:
        """`quantization_config`; empty where there is none."""
        found = self.config.get("quantization_config")
        return found if isinstance(found, Mapping) else {}

    @property
    def template(self) -> str:
        """The chat template, wherever it lies; empty where there is none."""
        path = self.folder / "chat_template.jinja"
        if path.is_file():
            return path.read_text(errors="replace")
        inline = self.tokenizer_config.get("chat_template")
        if isinstance(inline, list):  # several, by name
            return json.dumps(inline, sort_keys=True)
        return inline if isinstance(inline, str) else ""


def read(folder: Path) -> Checkpoint:
    """Return what a folder says about itself.

    Raises:
        ConfigurationError: There is no such folder.
        CheckpointBroken: It has no readable config.json, so nothing else can be judged.
    """
    if not folder.is_dir():
        raise ConfigurationError(f"{folder}: no such folder", hint="name a checkpoint's folder")
    damaged: list[Finding] = []
    config = _json(folder / "config.json", damaged)
    if not config:
        told = damaged[0].what if damaged else "it is missing or empty"
        raise CheckpointBroken(
            f"{folder}: config.json: {told}", hint="name the folder of a Hugging Face checkpoint"
        )
    return Checkpoint(
        folder,
        config,
        _json(folder / "generation_config.json", damaged),
        _json(folder / "tokenizer.json", damaged),
        _json(folder / "tokenizer_config.json", damaged),
        _json(folder / "hf_quant_config.json", damaged),
        _json(folder / "model.safetensors.index.json", damaged),
        _all_tensors(folder, damaged),
        tuple(damaged),
    )


def _json(path: Path, damaged: list[Finding]) -> dict[str, Any]:
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(body, dict):
            raise TypeError("it holds no object")
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError) as problem:
        damaged.append(error("unreadable", path.name, f"not JSON: {problem}", "pull it again"))
        return {}
    return body


def _all_tensors(folder: Path, damaged: list[Finding]) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        try:
            tensors = _tensors(path)
        except (OSError, ValueError, KeyError, TypeError) as problem:
            fix = "pull or write the file again"
            damaged.append(error("truncated-shard", path.name, str(problem), fix))
            continue
        twice = sorted(found.keys() & {t.name for t in tensors})
        if twice:
            told = f"{twice[0]} is in {found[twice[0]].file.name} too: an engine takes either"
            damaged.append(error("duplicate-tensor", path.name, told, "remove the stale file"))
        found |= {tensor.name: tensor for tensor in tensors}
    return found


def _tensors(path: Path) -> list[Tensor]:
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else _HEADER_LIMIT_BYTES + 1
        if length > min(_HEADER_LIMIT_BYTES, size - 8):
            raise ValueError("its header is longer than the file")
        header: dict[str, Any] = json.loads(file.read(length))
    header.pop("__metadata__", None)
    found = []
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        shape = tuple(entry["shape"])
        tensor = Tensor(name, path, entry["dtype"], shape, 8 + length + begin, end - begin)
        width = WIDTHS.get(tensor.dtype)
        if width and math.prod(shape) * width != tensor.size:
            raise ValueError(f"{name}: {tensor.size} bytes for {tensor.dtype} of shape {shape}")
        found.append(tensor)
    end = max((t.start + t.size for t in found), default=8 + length)
    if end != size:
        raise ValueError(f"{size} bytes, its header describes {end}")
    return found
