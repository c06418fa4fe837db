"""One process of a training on many devices: `torchrun -m components.training.node REQUEST`.

Its folder is the only way back: the first process writes what it tells, and what came of it.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from components.training import train_job
from components.worker import Request, Say, error_of, peak_rss_bytes, settle
from penstock.core.errors import TrainingFailed

_ALONE_S = 1800.0
"""A run that was canceled leaves its job behind; one whose follower died has it back in minutes."""


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
        result = train(request, _teller(folder) if first else _silent)
    except Exception as problem:  # noqa: BLE001 - the step raises it again, in its own words
        traceback.print_exc()
        _write(folder / train_job.ERROR, error_of(problem))  # whichever process fails tells why
        return 1
    if first:
        _write(folder / train_job.RESULT, {**result, "peak_rss_bytes": peak_rss_bytes()})
    return 0


def _teller(folder: Path) -> Say:
    path, followed = folder / train_job.LINES, Followed(folder / train_job.FOLLOWED)

    def say(body: Request) -> None:
        followed.check()
        with path.open("a") as lines:
            lines.write(json.dumps(body) + "\n")

    return say


class Followed:
    """Whether anybody still follows a job: devices cost, also when nobody waits for them.

    Args:
        path: What whoever follows touches.
        clock: Seconds, ever growing. Not the file's own time: a volume's clock may be another.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._path, self._clock = path, clock
        self._touched, self._at = self._read(), clock()

    def check(self) -> None:
        """Raise `TrainingFailed` when nobody did for half an hour."""
        touched = self._read()
        if touched != self._touched:
            self._touched, self._at = touched, self._clock()
        alone_s = self._clock() - self._at
        if alone_s > _ALONE_S:
            raise TrainingFailed(
                f"nobody has followed this job for {alone_s / 60:.0f} minutes",
                hint="run again: it goes on from its last checkpoint",
            )

    def _read(self) -> int:
        return self._path.stat().st_mtime_ns if self._path.exists() else 0


def _silent(_body: Request) -> None:
    """Nobody is told."""


def _write(path: Path, body: Request) -> None:
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    scratch.write_text(json.dumps(body))
    scratch.replace(path)


if __name__ == "__main__":
    sys.exit(main())
