"""Gates a checkpoint passes before it is evaluated. Nothing here loads weights or runs code."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from penstock.core.errors import PolicyRefused
from penstock.core.spec import Policy

_HEADER_LIMIT_BYTES = 100_000_000  # the format's own limit
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")


@dataclass(frozen=True, slots=True)
class Gate:
    """One check and its answer; a gate that did not run says why."""

    name: str
    outcome: Literal["passed", "failed", "skipped"]
    reason: str


def scan(folder: Path, policy: Policy) -> list[Gate]:
    """Return every gate's answer, in order."""
    checks: list[tuple[str, Callable[[Path, Policy], Gate]]] = [
        ("pickle", _pickle),
        ("remote-code", _remote_code),
        ("safetensors", _safetensors),
        ("config", _config),
        ("tokenizer", _tokenizer),
        ("licence", _licence),
    ]
    gates = []
    for name, check in checks:
        try:
            gates.append(check(folder, policy))
        except _Broken as problem:
            gates.append(Gate(name, "failed", str(problem)))
    return gates


def require(gates: Iterable[Gate], where: str) -> None:
    """Raise `PolicyRefused` with every failed gate."""
    failed = [f"{g.name}: {g.reason}" for g in gates if g.outcome == "failed"]
    if failed:
        raise PolicyRefused(
            f"{where}: {'; '.join(failed)}",
            hint="choose another checkpoint, or change policy in model.yaml if that is meant",
        )


class _Broken(Exception):
    """A file that is not what its name says."""


def _pickle(folder: Path, policy: Policy) -> Gate:
    found = sorted(p.name for p in folder.rglob("*") if p.suffix in _PICKLES)
    if found and not policy.allow_pickle:
        return Gate("pickle", "failed", f"pickles run code when loaded: {', '.join(found)}")
    if found:
        return Gate("pickle", "skipped", f"policy allows them; never opened: {', '.join(found)}")
    return Gate("pickle", "passed", "no pickles")


def _remote_code(folder: Path, policy: Policy) -> Gate:
    found = sorted(p.name for p in folder.rglob("*.py"))
    if _json(folder / "config.json").get("auto_map"):
        found.append("config.json: auto_map")
    if found and not policy.allow_remote_code:
        return Gate("remote-code", "failed", f"brings code of its own: {', '.join(found)}")
    if found:
        return Gate("remote-code", "skipped", f"policy allows it: {', '.join(found)}")
    return Gate("remote-code", "passed", "no code")


def _safetensors(folder: Path, _policy: Policy) -> Gate:
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        return Gate("safetensors", "skipped", "no safetensors files")
    names: set[str] = set()
    for path in files:
        names |= _tensors(path)
    index = folder / "model.safetensors.index.json"
    if index.exists():
        missing = set(_json(index).get("weight_map", {})) - names
        if missing:
            raise _Broken(f"the index names tensors that no file has: {sorted(missing)[:3]}")
    return Gate("safetensors", "passed", f"{len(names)} tensors in {len(files)} files")


def _tensors(path: Path) -> set[str]:
    """Return the tensor names; the header's offsets must fill the file exactly.

    Format: https://github.com/huggingface/safetensors#format
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else _HEADER_LIMIT_BYTES + 1
        if length > min(_HEADER_LIMIT_BYTES, size - 8):
            raise _Broken(f"{path.name}: header longer than the file: truncated or not safetensors")
        try:
            header: dict[str, Any] = json.loads(file.read(length))
        except ValueError as problem:
            raise _Broken(f"{path.name}: header is not JSON") from problem
    header.pop("__metadata__", None)
    end = max((int(t["data_offsets"][1]) for t in header.values()), default=0)
    if 8 + length + end != size:
        raise _Broken(f"{path.name}: {size} bytes, its header describes {8 + length + end}")
    return set(header)


def _config(folder: Path, _policy: Policy) -> Gate:
    config = _json(folder / "config.json")
    architectures = config.get("architectures") or []
    if not config.get("model_type"):
        raise _Broken("config.json: no model_type")
    return Gate("config", "passed", f"{config['model_type']} ({', '.join(architectures)})")


def _tokenizer(folder: Path, _policy: Policy) -> Gate:
    from tokenizers import Tokenizer

    path = folder / "tokenizer.json"
    if not path.exists():
        return Gate("tokenizer", "failed", "no tokenizer.json")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as problem:
        raise _Broken(f"tokenizer.json: {problem}") from problem
    size, room = tokenizer.get_vocab_size(), _json(folder / "config.json").get("vocab_size", 0)
    if size > room:
        raise _Broken(f"tokenizer has {size} tokens, the model {room}")
    return Gate("tokenizer", "passed", f"{size} tokens")


def _licence(folder: Path, policy: Policy) -> Gate:
    found = licence_of(folder)
    if policy.licenses is None:
        return Gate("licence", "skipped", f"policy.licenses names none; found {found or 'none'}")
    if found not in policy.licenses:
        return Gate(
            "licence", "failed", f"{found or 'none stated'}; allowed: {', '.join(policy.licenses)}"
        )
    return Gate("licence", "passed", found)


def licence_of(folder: Path) -> str:
    """Return the licence the model card's front matter states, or an empty text."""
    import yaml

    card = folder / "README.md"
    parts = card.read_text(errors="replace").split("---\n", 2) if card.exists() else []
    if len(parts) != 3 or parts[0].strip():
        return ""
    try:
        front = yaml.safe_load(parts[1])
    except yaml.YAMLError:
        return ""
    return str(front.get("license", "")) if isinstance(front, dict) else ""


def _json(path: Path) -> dict[str, Any]:
    try:
        body = json.loads(path.read_text())
    except OSError as problem:
        raise _Broken(f"{path.name}: cannot be read") from problem
    except ValueError as problem:
        raise _Broken(f"{path.name}: not JSON: {problem}") from problem
    if not isinstance(body, dict):
        raise _Broken(f"{path.name}: not a JSON object")
    return body
