"""The cache does not grow for ever."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tests.cluster.kept import prune, used
from tests.cluster.places import cache

DAY = 86400.0
DIGEST = "0123456789abcdef"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (cache() / "bin").mkdir(parents=True)
    return cache()


def test_what_was_used_stays_and_the_rest_goes(folder: Path) -> None:
    kept, old = folder / "bin" / f"etcd-{DIGEST}", folder / "bin" / f"etcd-{DIGEST[::-1]}"
    unpacked, other = folder / f"debian-{DIGEST}", folder / "registry"
    for path in (kept, old):
        path.write_text("program")
    for path in (unpacked, other):
        path.mkdir()
    (unpacked / "file").touch()
    for path in (kept, old, unpacked, other):
        os.utime(path, (0, 0))
    used(kept)
    said: list[str] = []
    prune(said.append, time.time())
    assert sorted(path.name for path in folder.rglob("*")) == ["bin", kept.name, "registry"]
    assert len(said) == 2


def test_use_does_not_make_a_file_look_changed(folder: Path) -> None:
    path = folder / "bin" / f"etcd-{DIGEST}"
    path.write_text("program")
    os.utime(path, (0, 5))
    assert used(path).stat().st_mtime == 5
    prune(print, time.time() + 13 * DAY)
    assert path.exists()
    prune(print, time.time() + 15 * DAY)
    assert not path.exists()
