"""The process that loads a model: `python -m components.quantization.worker`, JSON in and out."""

from __future__ import annotations

import sys
from typing import Any

from components.worker import Request, Say, serve


def _answer(request: Request, say: Say) -> dict[str, Any]:
    def tell(done: int, total: int, what: str) -> None:
        say({"progress": [done, total, what]})

    task = request["task"]
    if task == "sensitivity":
        from components.quantization.sensitivity import measure

        return {"layers": measure(request, tell)}
    if task == "llm-compressor":
        from components.quantization.compressed import make
    else:
        from components.quantization.modelopt import make
    make(request, tell)
    return {}


def main() -> int:
    """Answer the request on standard input."""
    return serve(_answer)


if __name__ == "__main__":
    sys.exit(main())
