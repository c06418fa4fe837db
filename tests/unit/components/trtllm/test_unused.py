"""What nobody uses is removed, whole; a kill at any moment leaves a cache that is as good."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest

from components.trtllm.cache import EngineCache, Entry
from components.trtllm.unused import Unused, remove, unused
from penstock.core.errors import BuildFailed
from tests.unit.components.trtllm.test_build import Bench

_FORK = multiprocessing.get_context("fork")
_DAY_S = 86400


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def _age(path: Path) -> None:
    """Let a build, or what is left of one, be two days old."""
    before = time.time() - 2 * _DAY_S
    for each in (path, *path.iterdir()):
        os.utime(each, (before, before))


def _old(bench: Bench) -> Entry:
    entry = bench.build()
    _age(entry.folder)
    return entry


def _unused(cache: EngineCache) -> list[Unused]:
    return unused(cache, time.time() - _DAY_S)


def test_what_is_old_is_found_and_removed_and_what_is_new_is_not(bench: Bench) -> None:
    assert _unused(bench.cache) == []
    old, new = _old(bench), bench.build(tp=2)
    (found,) = _unused(bench.cache)
    assert (found.digest, found.finished) == (old.key.digest, True)
    assert found.size_bytes > old.manifest.size_bytes
    assert remove(bench.cache, found) == found.size_bytes
    assert bench.cache.digests() == [new.key.digest]
    assert bench.cache.everything() == [new.key.digest]
    new.verify()
    bench.build().verify()


def test_a_build_that_is_found_again_is_in_use(bench: Bench) -> None:
    _old(bench)
    (found,) = _unused(bench.cache)
    bench.build()
    assert remove(bench.cache, found) == 0
    assert _unused(bench.cache) == []
    assert len(bench.cache.digests()) == 1


def test_nobody_removes_what_somebody_uses_or_builds(bench: Bench) -> None:
    digest = _old(bench).key.digest
    (found,) = _unused(bench.cache)
    with bench.cache.used(digest, print) as entry, bench.cache.used(digest, print):
        _age(entry.folder)
        assert _unused(bench.cache) == []
        assert remove(bench.cache, found) == 0
    with bench.cache.claimed(digest, print) as work:
        _age(entry.folder)
        _age(work)
        assert _unused(bench.cache) == []
        assert remove(bench.cache, found) == 0
    entry.verify()


def test_what_was_left_unfinished_goes_as_well_once_it_is_old(bench: Bench) -> None:
    with pytest.raises(BuildFailed):
        bench.build(fault="crash:trtllm-build")
    (left,) = bench.cache.unfinished()
    assert _unused(bench.cache) == []
    _age(bench.cache.root / ".work" / left.hex)
    (found,) = _unused(bench.cache)
    assert (found.digest.hex, found.finished) == (left.hex, False)
    assert remove(bench.cache, found) == found.size_bytes > 0
    assert bench.cache.everything() == []


def test_a_damaged_build_is_found_too(bench: Bench) -> None:
    entry = _old(bench)
    (entry.folder / "key.json").unlink()
    _age(entry.folder)
    (found,) = _unused(bench.cache)
    remove(bench.cache, found)
    assert bench.cache.everything() == []


def _remove_and_be_killed(cache: EngineCache, found: Unused, after: int) -> None:
    """Remove, and be killed before the next change of the file system after so many."""
    left = after

    def watch(event: str, _args: object) -> None:
        nonlocal left
        if event in ("os.rename", "os.remove", "os.rmdir"):
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    remove(cache, found)


def test_a_kill_at_any_moment_leaves_all_of_a_build_or_nothing_to_see(
    bench: Bench, tmp_path: Path
) -> None:
    entry = _old(bench)
    entry.judged({"outcome": "accept", "reason": "as good"})
    _age(entry.folder)
    kills, code = 0, -signal.SIGKILL
    while code == -signal.SIGKILL:
        cache = EngineCache(tmp_path / f"copy-{kills}")
        shutil.copytree(bench.cache.root, cache.root, copy_function=shutil.copy2)
        (found,) = _unused(cache)
        process = _FORK.Process(target=_remove_and_be_killed, args=(cache, found, kills))
        process.start()
        process.join(20)
        assert process.exitcode is not None
        code, kills = process.exitcode, kills + 1
        for digest in cache.digests():
            cache.entry(digest).verify()
            assert cache.entry(digest).servable
        assert bool(cache.digests()) == (kills == 1), "the first change is that it disappears"
        for left in _unused(cache):
            remove(cache, left)
        assert cache.everything() == []
        assert sorted(path.name for path in cache.root.iterdir()) == [".locks", ".work"]
    assert code == 0
    assert kills > 8
