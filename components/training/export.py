"""Makes checkpoint folders readable by transformers 4 and 5 alike.

transformers 5 drops `rope_theta` and writes a tokenizer class that 4.57 does not know; 4.57 then
runs with another RoPE and says nothing. Both spellings side by side are read right by both.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def write_portable_config(folder: Path) -> None:
    """Add transformers 4's spellings to the configuration that transformers 5 saved."""
    config = _read(folder / "config.json")
    rope = config.get("rope_parameters") or {}
    if "rope_theta" in rope:
        config["rope_theta"] = rope["rope_theta"]
        scaled = rope.get("rope_type", "default") != "default"
        config["rope_scaling"] = (
            {k: v for k, v in rope.items() if k != "rope_theta"} if scaled else None
        )
    if "dtype" in config:
        config["torch_dtype"] = config["dtype"]
    config["use_cache"] = True  # the trainer turns it off, for itself
    _write(folder / "config.json", config)
    tokenizer = folder / "tokenizer_config.json"
    if tokenizer.exists():
        settings = _read(tokenizer)
        if settings.get("tokenizer_class") == "TokenizersBackend":
            settings["tokenizer_class"] = "PreTrainedTokenizerFast"
        if isinstance(settings.get("extra_special_tokens"), list):
            settings["additional_special_tokens"] = settings.pop("extra_special_tokens")
        for local in ("backend", "is_local", "local_files_only"):
            settings.pop(local, None)
        _write(tokenizer, settings)


def _read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")
