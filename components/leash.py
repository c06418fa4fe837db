"""Runs a command that dies with the process that started it: `python -IS …/leash.py PID ARGV…`.

A child that outlives its killed parent would hold memory or the GPU, and write beside the next try.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Become the command."""
    parent, argv = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before we asked
        sys.exit(1)
    try:
        os.execvp(argv[0], argv)  # noqa: S606 - a list that a plan built, no shell
    except OSError as problem:
        sys.exit(f"{argv[0]}: {problem.strerror}")


if __name__ == "__main__":
    main()
