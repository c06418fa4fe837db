"""Stands in for `components.quantization.worker`: the same requests and answers, other deeds.

Run with a word: what it does instead of quantizing.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any


def send(body: dict[str, Any]) -> None:
    """Answer one line."""
    sys.stdout.write(json.dumps(body) + "\n")
    sys.stdout.flush()


def crash(_request: dict[str, Any], scratch: Path) -> dict[str, Any]:
    (scratch / "half.safetensors").write_bytes(b"half")
    send({"error": {"message": "ValueError: no such kernel", "errno": None, "traceback": "here"}})
    sys.exit(1)


def kill(_request: dict[str, Any], scratch: Path) -> dict[str, Any]:
    (scratch / "half.safetensors").write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
    return {}


def full(_request: dict[str, Any], scratch: Path) -> dict[str, Any]:
    (scratch / "half.safetensors").write_bytes(b"half")
    told = "SafetensorError: I/O error: No space left on device (os error 28)"
    send({"error": {"message": told, "errno": None, "traceback": "here"}})
    sys.exit(1)


def wait(_request: dict[str, Any], _scratch: Path) -> dict[str, Any]:
    send({"progress": [3, 4, str(os.getpid())]})
    signal.pause()
    return {}


def lie(request: dict[str, Any], scratch: Path) -> dict[str, Any]:
    """Write the parent's weights under a configuration that says they are quantized."""
    shutil.copyfile(Path(request["parent"]) / "model.safetensors", scratch / "model.safetensors")
    config = {"quantization_config": {"quant_method": "compressed-tensors", "format": "x"}}
    (scratch / "config.json").write_text(json.dumps(config))
    return {}


def echo(request: dict[str, Any], _scratch: Path) -> dict[str, Any]:
    return {"request": request}


def rank(request: dict[str, Any], _scratch: Path) -> dict[str, Any]:
    return {"layers": [{"names": g, "kl": 0.5, "weights": 9} for g in request["groups"]]}


DEEDS = {deed.__name__: deed for deed in (crash, kill, full, wait, lie, echo, rank)}


def main() -> int:
    """Do what the word says."""
    request = json.load(sys.stdin)
    send({"progress": [2, 4, "quantizing"]})
    sys.stderr.write("a line that a library prints\n")
    result = DEEDS[sys.argv[1]](request, Path(request.get("scratch", ".")))
    send({"result": result | {"peak_rss_bytes": 123}})
    return 0


if __name__ == "__main__":
    sys.exit(main())
