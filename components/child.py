"""Runs a worker process and returns its answer, its time and its peak memory (`components.worker`).

What loads a model runs in a process of its own: it may be killed for memory, and libraries print
and patch what they like there.
"""

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
from penstock.core import errors
from penstock.core.errors import LifecycleError, disk_errors

_LOG_LINES = 5
_NO_SPACE = (("os error 28", 28), ("os error 122", 122), ("os error 27", 27))

Body = Mapping[str, Any]


class _InWorker(Exception):
    """The traceback of the worker, as a cause."""


@dataclass(frozen=True, slots=True)
class Voice:
    """How it is said that a worker failed."""

    who: str
    """`the quantizer`."""

    error: type[LifecycleError]
    killed: str
    """What to do when it was killed, probably for memory."""

    failed: str
    """What to do when it refused or crashed."""


@dataclass(frozen=True, slots=True)
class Ran:
    """What the worker answered and needed."""

    result: Body
    wall_s: float
    peak_rss_bytes: int


def run(
    request: Body,
    on_line: Callable[[Body], None],
    *,
    worker: tuple[str, ...],
    voice: Voice,
) -> Ran:
    """Run one request to its end; the worker dies with this process.

    Args:
        request: JSON; `scratch` is where it writes.
        on_line: Told every line of the worker: `progress` is (done, in all, what is done now).
        worker: Arguments of the interpreter.
        voice: How failures are told.

    Raises:
        DiskFull: The worker could not write.
        LifecycleError: The voice's: the worker refused, crashed or was killed.
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
            answer = _converse(process, request, on_line)
            code = process.wait()
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            for pipe in (process.stdin, process.stdout):
                with suppress(OSError):
                    pipe.close()  # type: ignore[union-attr]
        if code or "result" not in answer:
            scratch = Path(str(request.get("scratch", ".")))
            refuse(voice, answer, code, _last_lines(log), scratch)
    result = dict(answer["result"])
    peak = int(result.pop("peak_rss_bytes"))
    return Ran(result, time.perf_counter() - start, peak)


def _converse(
    process: subprocess.Popen[str], request: Body, on_line: Callable[[Body], None]
) -> dict[str, Any]:
    answer: dict[str, Any] = {}
    if process.stdin is None or process.stdout is None:
        return answer
    with suppress(BrokenPipeError), process.stdin:  # it died already: its exit code says why
        process.stdin.write(json.dumps(request))
    for line in process.stdout:
        body: dict[str, Any] = json.loads(line)
        on_line(body)
        answer |= body
    return answer


def refuse(voice: Voice, answer: Body, code: int, log: str, scratch: Path) -> None:
    """Raise what a worker that failed answered, or what became of it.

    Args:
        voice: How it is said.
        answer: What it told: `error`, and its last `progress`.
        code: Of its exit.
        log: What it printed last.
        scratch: Where it wrote.
    """
    error = answer.get("error") or {}
    message = str(error.get("message", ""))
    number = error.get("errno") or next((n for text, n in _NO_SPACE if text in message), None)
    with disk_errors(scratch):
        if number is not None:
            problem = OSError(number, os.strerror(number), str(scratch))
            raise problem
    known = getattr(errors, str(error.get("kind")), None)
    if isinstance(known, type) and issubclass(known, LifecycleError):
        if known.__init__ is LifecycleError.__init__:  # others are made of more than a message
            raise known(message, hint=str(error.get("hint", "")))
        raise LifecycleError(message, hint=str(error.get("hint", "")))
    stage = (answer.get("progress") or [0, 0, "starting"])[2]
    if code == -signal.SIGKILL:
        raise voice.error(
            f"{voice.who} was killed while {stage} (signal 9): probably out of memory",
            hint=voice.killed,
        )
    told = message or f"exit code {code}: {log}"
    raise voice.error(
        f"{voice.who} failed while {stage}: {told}",
        hint=f"{voice.failed}; what it printed last: {log or 'nothing'}",
    ) from _InWorker(str(error.get("traceback", told)))


def _last_lines(log: TextIO) -> str:
    log.seek(0)
    return " | ".join(deque((line.strip() for line in log if line.strip()), _LOG_LINES))
