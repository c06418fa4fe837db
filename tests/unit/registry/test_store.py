from __future__ import annotations

import errno
import fcntl
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock.core.errors import DigestMismatch, DiskFull, StoreError
from penstock.core.identity import Digest, ModelRef
from penstock.core.manifest import FileEntry
from registry.store import Store, hash_file, hash_files, locked, manifest_of, require_space, verify

SOURCE = ModelRef.parse("hf://acme/model@main")


def _folder(root: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def test_a_checkpoint_comes_back_as_it_went_in(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    manifest = store.add(_folder(tmp_path / "in", {"a": b"1", "b/c": b"2"}), SOURCE)
    folder = store.checkpoint(manifest.root)
    assert (folder / "b/c").read_bytes() == b"2"
    assert store.manifest(manifest.root) == manifest
    assert store.roots() == [manifest.root]
    verify(folder, manifest)


def test_adding_twice_is_adding_once(tmp_path: Path) -> None:
    store, folder = Store(tmp_path / "store"), _folder(tmp_path / "in", {"a": b"1"})
    assert store.add(folder, SOURCE) == store.add(folder, SOURCE)
    assert len(list((tmp_path / "store/objects").glob("*/*"))) == 1


def test_equal_files_are_stored_once(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    store.add(_folder(tmp_path / "one", {"a": b"same", "b": b"x"}), SOURCE)
    store.add(_folder(tmp_path / "two", {"c": b"same"}), SOURCE)
    assert len(list((tmp_path / "store/objects").glob("*/*"))) == 2


def test_adding_again_repairs_a_damaged_checkpoint(tmp_path: Path) -> None:
    store, source = Store(tmp_path / "store"), _folder(tmp_path / "in", {"a": b"good"})
    manifest = store.add(source, SOURCE)
    damaged = store.checkpoint(manifest.root) / "a"
    damaged.chmod(0o644)
    damaged.write_bytes(b"evil")
    store.add(source, SOURCE)
    verify(store.checkpoint(manifest.root), manifest)


def test_gc_keeps_what_is_asked_for(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    kept = store.add(_folder(tmp_path / "one", {"a": b"same", "b": b"keep"}), SOURCE)
    gone = store.add(_folder(tmp_path / "two", {"a": b"same", "b": b"go away"}), SOURCE)
    assert store.gc([kept.root]) == len(b"go away")
    assert store.roots() == [kept.root]
    verify(store.checkpoint(kept.root), kept)
    with pytest.raises(StoreError, match="not in the store"):
        store.checkpoint(gone.root)


def test_gc_waits_for_who_adds_and_clears_what_was_killed(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    kept = store.add(_folder(tmp_path / "one", {"a": b"1"}), SOURCE)
    killed = _folder(tmp_path / "store/checkpoints/.new-killed", {})
    killed.mkdir()
    with ThreadPoolExecutor(1) as pool:
        with locked(store.root / "lock", fcntl.LOCK_SH):
            waiting = pool.submit(store.gc, [kept.root])
            with pytest.raises(TimeoutError):
                waiting.result(0.2)
        assert waiting.result(10) == 0
    assert not killed.exists()


def test_a_file_that_is_not_what_was_promised_is_not_stored(tmp_path: Path) -> None:
    store, folder = Store(tmp_path / "store"), _folder(tmp_path / "in", {"a": b"1", "b": b"2"})
    with pytest.raises(DigestMismatch, match=r"altered on the way: b is sha256:"):
        store.add(folder, SOURCE, promised={"a": Digest.of(b"1"), "b": Digest.of(b"3")})
    assert store.roots() == []
    store.add(folder, SOURCE, promised={"a": Digest.of(b"1")})


def test_verify_names_every_difference(tmp_path: Path) -> None:
    folder = _folder(tmp_path, {"same": b"1", "changed": b"2", "longer": b"3", "missing": b"4"})
    manifest = manifest_of(folder, SOURCE)
    (folder / "changed").write_bytes(b"x")
    (folder / "longer").write_bytes(b"33")
    (folder / "missing").unlink()
    (folder / "extra").write_bytes(b"")
    with pytest.raises(DigestMismatch) as raised:
        verify(folder, manifest)
    assert "(changed: changed, longer; missing: missing; extra: extra)" in str(raised.value)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(min_size=1, max_size=64), data=st.data())
def test_verify_notices_any_changed_byte(
    tmp_path: Path, content: bytes, data: st.DataObject
) -> None:
    folder = _folder(tmp_path, {"file": content})
    manifest = manifest_of(folder, SOURCE)
    at = data.draw(st.integers(0, len(content) - 1))
    changed = bytearray(content)
    changed[at] ^= data.draw(st.integers(1, 255))
    (folder / "file").write_bytes(changed)
    with pytest.raises(DigestMismatch):
        verify(folder, manifest)


def test_digests_come_in_the_order_asked_for(tmp_path: Path) -> None:
    folder = _folder(tmp_path, {"small": b"1", "large": b"2" * 3_000_000})
    paths = [folder / "small", folder / "large"]
    seen: list[tuple[int, int]] = []
    digests = hash_files(paths, lambda done, total: seen.append((done, total)))
    assert digests == [hash_file(p) for p in paths]
    assert digests[0] == Digest.of(b"1")
    assert seen[-1] == (3_000_001, 3_000_001)


class _FullDisk(Store):
    """A store whose disk fills up at the second file."""

    def _link(self, file: Path, entry: FileEntry, target: Path, put: Any) -> None:
        if entry.path == "b":
            raise OSError(errno.ENOSPC, "No space left on device")
        super()._link(file, entry, target, put)


def test_a_full_disk_leaves_no_half_checkpoint(tmp_path: Path) -> None:
    store = _FullDisk(tmp_path / "store")
    with pytest.raises(DiskFull, match="no space left") as raised:
        store.add(_folder(tmp_path / "in", {"a": b"1", "b": b"2"}), SOURCE)
    assert "PENSTOCK_HOME" in raised.value.hint
    assert store.roots() == []
    assert list((tmp_path / "store/checkpoints").iterdir()) == []


def test_space_is_asked_for_before_it_is_used(tmp_path: Path) -> None:
    require_space(tmp_path / "not" / "made", 1)
    with pytest.raises(DiskFull, match=r"1000000000\.0 GB are needed") as raised:
        require_space(tmp_path / "not" / "made", 10**18)
    assert "PENSTOCK_HOME" in raised.value.hint
    assert not (tmp_path / "not").exists()


def test_files_that_are_ours_are_linked(tmp_path: Path) -> None:
    folder = _folder(tmp_path / "in", {"a": b"1"})
    manifest = Store(tmp_path / "store").add(folder, SOURCE, owned=True)
    stored = Store(tmp_path / "store").checkpoint(manifest.root) / "a"
    assert stored.samefile(folder / "a")
