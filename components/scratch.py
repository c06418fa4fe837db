"""Folders for what is not finished: gone when it is, whatever happens.

An owner that was killed removes nothing, so the next one does. Whether an owner lives is asked of
the kernel: it holds a lock on a file in its folder, which ends with it, and is seen from other
containers, where its pid means nothing.
"""

from __future__ import annotations

import fcntl
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_OWNER = ".owner"


@contextmanager
def scratch(target: Path) -> Iterator[Path]:
    """Give an empty folder beside `target`, so that a rename moves what it holds; then remove it.

    Those that dead owners left beside the same target are removed first.

    Args:
        target: What is being made; its parent exists.
    """
    prefix = f".{target.name}."
    for left in target.parent.iterdir():
        if left.name.startswith(prefix):
            _sweep(left)
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=target.parent))
    try:
        with (folder / f"{_OWNER}.new").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            (folder / f"{_OWNER}.new").rename(folder / _OWNER)  # nobody ever sees it without lock
            inside = folder / "inside"
            inside.mkdir()
            yield inside
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _sweep(left: Path) -> None:
    with suppress(OSError), (left / _OWNER).open("r+") as lock:  # not there: nobody's yet
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # refused: its owner lives
        shutil.rmtree(left, ignore_errors=True)
