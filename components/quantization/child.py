"""Runs the worker and returns its answer, its time and its peak memory."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from components import leash
from penstock.core.errors import RecipeImpossible, disk_errors

WORKER = ("-m", "components.quantization.worker")
_LOG_LINES = 5
_NO_SPACE = (("os error 28", 28), ("os error 122", 122), ("os error 27", 27))


class _InWorker(Exception):
    """The traceback of the worker, as a cause."""


@dataclass(frozen=True, slots=True)
class Ran:
    """What the worker answered and needed."""

    result: Mapping[str, Any]
    wall_s: float
    peak_rss_bytes: int


def run(
    request: Mapping[str, Any],
    on_progress: Callable[[int, int, str], None],
    *,
    worker: tuple[str, ...] = WORKER,
) -> Ran:
    """Run one request to its end; the worker dies with this process.

    Args:
        request: JSON; `task` says what is done, see `worker`.
        on_progress: Told (stages done, stages in all, what is done now).
        worker: Arguments of the interpreter.

    Raises:
        DiskFull: The worker could not write.
        RecipeImpossible: The library refused, or the worker was killed.
    """
    start = time.perf_counter()
    with tempfile.TemporaryFile("w+", errors="replace") as log:
        process = subprocess.Popen(
            [sys.executable, "-IS", leash.__file__, str(os.getpid()), sys.executable, *worker],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            start_new_session=True,
        )
        try:
            answer = _converse(process, request, on_progress)
            code = process.wait()
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            for pipe in (process.stdin, process.stdout):
                with suppress(OSError):
                    pipe.close()  # type: ignore[union-attr]
        if code or "result" not in answer:
            _refuse(answer, code, _last_lines(log), Path(str(request.get("scratch", "."))))
    result = dict(answer["result"])
    peak = int(result.pop("peak_rss_bytes"))
    return Ran(result, time.perf_counter() - start, peak)


def _converse(
    process: subprocess.Popen[str],
    request: Mapping[str, Any],
    on_progress: Callable[[int, int, str], None],
) -> dict[str, Any]:
    answer: dict[str, Any] = {}
    if process.stdin is None or process.stdout is None:
        return answer
    with suppress(BrokenPipeError), process.stdin:  # it died already: its exit code says why
        process.stdin.write(json.dumps(request))
    for line in process.stdout:
        body: dict[str, Any] = json.loads(line)
        if "progress" in body:
            done, total, what = body["progress"]
            on_progress(done, total, what)
        answer |= body
    return answer


def _refuse(answer: Mapping[str, Any], code: int, log: str, scratch: Path) -> None:
    error = answer.get("error") or {}
    message = str(error.get("message", ""))
    number = error.get("errno") or next((n for text, n in _NO_SPACE if text in message), None)
    with disk_errors(scratch):
        if number is not None:
            problem = OSError(number, os.strerror(number), str(scratch))
            raise problem
    stage = (answer.get("progress") or [0, 0, "starting"])[2]
    if code == -signal.SIGKILL:
        raise RecipeImpossible(
            f"the quantizer was killed while {stage} (signal 9): probably out of memory",
            hint="give it more memory, or choose a recipe without calibration",
        )
    told = message or f"exit code {code}: {log}"
    raise RecipeImpossible(
        f"the quantizer failed while {stage}: {told}",
        hint="choose another recipe; what it printed last: " + (log or "nothing"),
    ) from _InWorker(str(error.get("traceback", told)))


def _last_lines(log: TextIO) -> str:
    log.seek(0)
    return " | ".join(deque((line.strip() for line in log if line.strip()), _LOG_LINES))
