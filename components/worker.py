"""The frame of a process that loads a model: a JSON request in, JSON lines out.

One request on standard input; on standard output one JSON object per line: `progress` and whatever
else is told, then `result` or `error`. What libraries print goes where errors go.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TextIO

from penstock.core.errors import LifecycleError

_M_MMAP_THRESHOLD = -3  # malloc.h
_MOST = 4000
"""Characters of a message."""

Request = Mapping[str, Any]
Say = Callable[[Mapping[str, Any]], None]
"""Sends one line."""


def serve(answer: Callable[[Request, Say], dict[str, Any]]) -> int:
    """Answer the request on standard input; return the exit code."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    settle()
    _no_bars()
    try:
        result = answer(json.load(sys.stdin), lambda body: _send(answers, body))
    except Exception as problem:  # noqa: BLE001 - the parent raises it again, in its own words
        _send(answers, {"error": error_of(problem)})
        return 1
    _send(answers, {"result": result | {"peak_rss_bytes": peak_rss_bytes()}})
    return 0


def error_of(problem: Exception) -> dict[str, Any]:
    """Return an error as JSON, while it is handled; ours keeps its kind and its hint."""
    number = problem.errno if isinstance(problem, OSError) else None
    trace = traceback.format_exc()[-_MOST:]
    if isinstance(problem, LifecycleError):
        kind, told = type(problem).__name__, str(problem)
        body = {"kind": kind, "message": told[:_MOST], "hint": problem.hint}
    else:
        body = {"message": f"{type(problem).__name__}: {problem}"[:_MOST]}
    return {**body, "errno": number, "traceback": trace}


def settle() -> None:
    """Keep libraries off the network, and give freed weights back to the system at once."""
    os.environ["HF_HUB_OFFLINE"] = "1"  # before the imports that read it
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    if sys.platform == "linux":
        # glibc raises this threshold by itself, and then freed layers stay in the heap as holes
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, 1 << 20)


def _no_bars() -> None:
    """Keep progress bars out of the log, whose end is told when something fails.

    Not by `TQDM_DISABLE`: compressed-tensors says for each bar whether it is disabled.
    """
    from tqdm import tqdm  # type: ignore[import-untyped]

    begin = tqdm.__init__

    def silently(self: Any, *arguments: Any, **options: Any) -> None:
        begin(self, *arguments, **{**options, "disable": True})

    tqdm.__init__ = silently


def _send(answers: TextIO, body: Mapping[str, Any]) -> None:
    answers.write(json.dumps(body) + "\n")
    answers.flush()


def peak_rss_bytes() -> int:
    """Return the most memory this program had resident.

    Not `ru_maxrss`, where Linux tells it: that begins with what the parent had when it forked.
    """
    status = Path("/proc/self/status")
    if not status.exists():
        import resource

        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else most * 1024
    found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text())
    return int(found[1]) * 1024 if found else 0
