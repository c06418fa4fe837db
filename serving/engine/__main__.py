"""`python -m serving.engine FOLDER --model-name NAME (--port PORT | --socket PATH)`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from penstock.core.errors import LifecycleError
from serving.engine.server import run


def main() -> int:
    """Serves until SIGTERM; prints one line with the address once requests are answered."""
    parser = argparse.ArgumentParser(prog="python -m serving.engine", description=__doc__)
    parser.add_argument("folder", type=Path, help="the checkpoint")
    parser.add_argument("--model-name", required=True, help="the name clients ask for")
    parser.add_argument("--host", default="127.0.0.1")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--port", type=int, help="0 takes a free one")
    where.add_argument("--socket", type=Path, help="a Unix socket to listen on instead")
    parser.add_argument(
        "--fault", default="", help="fail on purpose: live-errors=SHARE,live-delay=SECONDS"
    )
    options = parser.parse_args()
    # transformers imports these where they are installed, for what is not served here (assisted
    # generation, losses): a fifth of the processor time of a start. None says that they are absent
    absent: Any = dict.fromkeys(("sklearn", "scipy"))
    sys.modules.update(absent)
    try:
        run(
            options.folder,
            model_name=options.model_name,
            host=options.host,
            port=options.port,
            unix_socket=options.socket,
            fault=options.fault,
            on_ready=lambda url: print(f"ready {url}", flush=True),  # noqa: T201 - the one line
        )
    except LifecycleError as error:
        hint = f"\n  {error.hint}" if error.hint else ""
        print(f"error: {error}{hint}", file=sys.stderr)  # noqa: T201 - the process edge
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
