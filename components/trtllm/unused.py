"""Builds that nobody uses: found by their age and their locks, and removed."""

from __future__ import annotations

import shutil
from dataclasses import dataclass

from components.trtllm.cache import EngineCache
from penstock.core.identity import Digest


@dataclass(frozen=True, slots=True)
class Unused:
    """A finished build, or what is left of one that was not finished."""

    digest: Digest
    finished: bool
    used_at: float
    """When it was last built or found, in seconds since the epoch."""

    size_bytes: int


def unused(cache: EngineCache, before: float) -> list[Unused]:
    """Return what nobody builds or uses, and nobody has since a time."""
    found = []
    for digest in cache.everything():
        with cache.unclaimed(digest) as free:
            each = _look(cache, digest) if free else None
        if each and each.used_at <= before:
            found.append(each)
    return found


def remove(cache: EngineCache, found: Unused) -> int:
    """Remove what was found, unless somebody has used it since; return the bytes freed.

    A finished build disappears whole, in one step. What a kill leaves of it is found again.
    """
    digest = found.digest
    with cache.unclaimed(digest) as free:
        if not free or not (now := _look(cache, digest)) or now.used_at > found.used_at:
            return 0
        cache.withdraw(digest)
        for path in cache.places(digest):
            shutil.rmtree(path)
        return now.size_bytes


def _look(cache: EngineCache, digest: Digest) -> Unused | None:
    places = cache.places(digest)
    # what is under way is as old as its newest part: a log grows while its stage runs
    lasting = [place for place in places if not place.name.startswith((".new-", ".old-"))]
    marks = [mark for place in lasting for mark in (place, *place.iterdir())]
    used_at = max((mark.lstat().st_mtime for mark in marks), default=0.0)
    found = [path.lstat() for place in places for path in place.rglob("*") if path.is_file()]
    size = sum({stat.st_ino: stat.st_size for stat in found}.values())  # a link is no copy
    finished = cache.root / digest.hex in places
    return Unused(digest, finished, used_at, size) if places else None
