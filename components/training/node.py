"""One process of a training on many devices: `torchrun -m components.training.node REQUEST`.

Its folder is the only way back: the first process writes what it tells, and what came of it.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any

from components.training import train_job
from components.worker import Request, Say, error_of, peak_rss_bytes, settle


def main() -> int:
    """Take part in the training that a request describes."""
    folder = Path(sys.argv[1]).parent
    request: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text())
    settle()
    return take_part(request, folder, first=os.environ.get("RANK", "0") == "0")


def take_part(request: Request, folder: Path, *, first: bool) -> int:
    """Train, and leave the result or the error in the folder; return the exit code.

    Args:
        request: As `fit.train` takes it.
        folder: Where the request lies.
        first: Whether this process tells.
    """
    from components.training.fit import train

    try:
        result = train(request, _teller(folder / train_job.LINES) if first else _silent)
    except Exception as problem:  # noqa: BLE001 - the step raises it again, in its own words
        traceback.print_exc()
        _write(folder / train_job.ERROR, error_of(problem))  # whichever process fails tells why
        return 1
    if first:
        _write(folder / train_job.RESULT, {**result, "peak_rss_bytes": peak_rss_bytes()})
    return 0


def _teller(path: Path) -> Say:
    def say(body: Request) -> None:
        with path.open("a") as lines:
            lines.write(json.dumps(body) + "\n")

    return say


def _silent(_body: Request) -> None:
    """Nobody is told."""


def _write(path: Path, body: Request) -> None:
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    scratch.write_text(json.dumps(body))
    scratch.replace(path)


if __name__ == "__main__":
    sys.exit(main())
