"""The process that loads a model: `python -m components.quantization.worker`, JSON in and out.

One request on standard input; on standard output one JSON object per line: `progress`, then
`result` or `error`. Libraries print and patch what they like: it ends with this process.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

from components.quantization.loading import Tell

_M_MMAP_THRESHOLD = -3  # malloc.h
_MOST = 4000
"""Characters of a message."""


def main() -> int:
    """Answer the request on standard input."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print goes where errors go
    _settle()
    _no_bars()

    def tell(done: int, total: int, what: str) -> None:
        _send(answers, {"progress": [done, total, what]})

    try:
        result = _answer(json.load(sys.stdin), tell)
    except Exception as problem:  # noqa: BLE001 - the parent raises it again, in its own words
        number = problem.errno if isinstance(problem, OSError) else None
        told = f"{type(problem).__name__}: {problem}"
        trace = traceback.format_exc()
        error = {"message": told[:_MOST], "errno": number, "traceback": trace[-_MOST:]}
        _send(answers, {"error": error})
        return 1
    _send(answers, {"result": result | {"peak_rss_bytes": peak_rss_bytes()}})
    return 0


def _answer(request: Mapping[str, Any], tell: Tell) -> dict[str, Any]:
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


def _settle() -> None:
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


if __name__ == "__main__":
    sys.exit(main())
