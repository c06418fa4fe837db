"""A warm parent: imports the engine once, then forks a replica per request line.

`python -m serving.local.zygote ENGINE PRELOAD…`; requests are JSON lines on standard input, each
answered with `{"pid": …}`. It ends with its standard input; its replicas go on.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

from penstock.core.errors import LifecycleError


def main(engine: str, preload: list[str]) -> None:
    """Serve requests until standard input ends."""
    run = importlib.import_module(engine).run
    for name in preload:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # the children share these pages
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps
    print(json.dumps({"warm": True}), flush=True)  # noqa: T201 - the protocol
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            _replica(run, json.loads(line))
        print(json.dumps({"pid": pid}), flush=True)  # noqa: T201 - the protocol


def _replica(run: Any, request: dict[str, str]) -> None:
    """Become a replica; never returns."""
    code = 1
    try:
        os.setsid()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        address = Path(request["address"])

        def tell(url: str) -> None:
            scratch = address.with_suffix(".new")
            scratch.write_text(url)
            scratch.replace(address)

        run(
            Path(request["folder"]),
            model_name=request["model_name"],
            host="127.0.0.1",
            port=0,
            fault=request["fault"],
            on_ready=tell,
        )
        code = 0
    except LifecycleError as problem:
        sys.stderr.write(f"error: {problem}\n")
        code = problem.exit_code
    except BaseException:
        traceback.print_exc()
        raise
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # nothing of the parent's may run at exit


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
