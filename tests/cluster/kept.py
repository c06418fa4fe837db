"""What the cache keeps: what was used in the last days, and nothing else."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from tests.cluster.places import cache

_DAYS = 14


def used(path: Path) -> Path:
    """Note that something of the cache is used now, and return it."""
    os.utime(path, (time.time(), path.stat().st_mtime))
    return path


def prune(say: Callable[[str], None], now: float) -> None:
    """Remove binaries and folders, named by what they are made of, that nobody used for long."""
    hexadecimal = "[0-9a-f]" * 16
    for path in [*cache().glob(f"bin/*-{hexadecimal}*"), *cache().glob(f"*-{hexadecimal}")]:
        if path.stat().st_atime < now - _DAYS * 86400:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
            say(f"removed {path.name}, unused for {_DAYS} days")
