"""Which of a training's checkpoints are whole: the last of those is resumed from.

The trainer writes into a checkpoint's own folder, so that one whose writer was killed looks like a
whole one. A mark is written last; it names every file with its size.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

_MARK = ".whole.json"
_NAME = re.compile(r"checkpoint-(\d+)")


def mark(folder: Path) -> None:
    """Say that a checkpoint is whole, once its files are on the disk."""
    sizes = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != _MARK:
            with path.open("rb") as file:
                os.fsync(file.fileno())
            sizes[path.relative_to(folder).as_posix()] = path.stat().st_size
    scratch = folder / f"{_MARK}.new"
    with scratch.open("w") as file:
        file.write(json.dumps(sizes))
        file.flush()
        os.fsync(file.fileno())
    scratch.rename(folder / _MARK)


def whole(folder: Path) -> bool:
    """Return whether every file that the mark names is there, with its size."""
    try:
        sizes: dict[str, int] = json.loads((folder / _MARK).read_text())
        return all((folder / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError):
        return False


def last(progress: Path) -> Path | None:
    """Return the last whole checkpoint below a folder; broken ones are removed."""
    found: list[tuple[int, Path]] = []
    for path in progress.iterdir() if progress.is_dir() else ():
        named = _NAME.fullmatch(path.name)
        if named is None:
            continue
        if whole(path):
            found.append((int(named[1]), path))
        else:
            shutil.rmtree(path)
    return max(found)[1] if found else None


def step_of(checkpoint: Path | None) -> int:
    """Return the optimizer step of a checkpoint; 0 for none."""
    named = _NAME.fullmatch(checkpoint.name) if checkpoint else None
    return int(named[1]) if named else 0
