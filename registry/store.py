"""The content-addressed store: every file once, under its digest; a checkpoint is links to them.

```
objects/ab/abcdef…            one file, read-only, named by its SHA-256
checkpoints/<root>/…          a checkpoint's folder: hard links to its objects
checkpoints/<root>.json       its manifest
```
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

from penstock.core.errors import DigestMismatch, DiskFull, StoreError, disk_errors
from penstock.core.identity import Digest, ModelRef
from penstock.core.manifest import FileEntry, Manifest

_BUFFER_BYTES = 1 << 20
Progress = Callable[[int, int], None]
_Put = Callable[[Path, Path], object]


def _silent(_done: int, _total: int) -> None:
    """Progress for nobody."""


def hash_file(path: Path) -> Digest:
    """Return the SHA-256 of a file's content."""
    digest = hashlib.sha256()
    buffer = bytearray(_BUFFER_BYTES)
    view = memoryview(buffer)
    with path.open("rb", buffering=0) as file:
        while size := file.readinto(buffer):
            digest.update(view[:size])
    return Digest("sha256", digest.hexdigest())


def hash_files(paths: Sequence[Path], on_progress: Progress = _silent) -> list[Digest]:
    """Return the digests in order; all cores work, the largest file first.

    Args:
        paths: Files to read.
        on_progress: Told (bytes hashed, bytes in all), whenever a file is done.
    """
    sizes = [path.stat().st_size for path in paths]
    total, done = sum(sizes), 0
    order = sorted(range(len(paths)), key=lambda i: -sizes[i])
    digests: dict[int, Digest] = {}
    # hashlib releases the interpreter lock, so threads use every core
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        hashed = pool.map(hash_file, [paths[i] for i in order])
        for i, digest in zip(order, hashed, strict=True):
            digests[i] = digest
            done += sizes[i]
            on_progress(done, total)
    return [digests[i] for i in range(len(paths))]


def files_of(folder: Path) -> list[str]:
    """Return the relative paths of all files below a folder, sorted."""
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def manifest_of(folder: Path, source: ModelRef, on_progress: Progress = _silent) -> Manifest:
    """Return the manifest of a folder as it is now."""
    names = files_of(folder)
    digests = hash_files([folder / name for name in names], on_progress)
    entries = [
        FileEntry(name, (folder / name).stat().st_size, digest)
        for name, digest in zip(names, digests, strict=True)
    ]
    return Manifest(source, tuple(sorted(entries)))


def verify(folder: Path, manifest: Manifest) -> None:
    """Raise `DigestMismatch`, naming every file that is changed, missing or extra."""
    recorded = {entry.path: entry for entry in manifest.files}
    present = set(files_of(folder))
    common = sorted(present & recorded.keys())
    # a file of another size needs no reading to be known as changed
    same_size = [n for n in common if (folder / n).stat().st_size == recorded[n].size_bytes]
    digests = dict(zip(same_size, hash_files([folder / n for n in same_size]), strict=True))
    wrong = {
        "changed": [name for name in common if digests.get(name) != recorded[name].digest],
        "missing": sorted(recorded.keys() - present),
        "extra": sorted(present - recorded.keys()),
    }
    if any(wrong.values()):
        told = "; ".join(f"{what}: {', '.join(names)}" for what, names in wrong.items() if names)
        raise DigestMismatch(
            f"{folder}: not the files that were recorded ({told})",
            hint="run `penstock run` again: it pulls what is damaged",
        )


@contextmanager
def locked(path: Path, how: int = fcntl.LOCK_EX) -> Iterator[None]:
    """Hold a lock file, made when missing, waiting for who holds it; it ends with the process."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as lock:
        fcntl.flock(lock, how)
        yield


class Store:
    """Checkpoints on this machine.

    Args:
        root: Folder of the store; made when something is added.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def checkpoint(self, root: Digest) -> Path:
        """Return the folder of a checkpoint; `StoreError` if it is not here."""
        folder = self.root / "checkpoints" / root.hex
        if not folder.is_dir():
            raise StoreError(
                f"checkpoint {root.short} is not in the store {self.root}",
                hint="pull it: penstock run model.yaml",
            )
        return folder

    def manifest(self, root: Digest) -> Manifest:
        """Return the manifest of a checkpoint."""
        self.checkpoint(root)
        return Manifest.from_json(self._manifest_path(root.hex).read_text())

    def roots(self) -> list[Digest]:
        """Return every checkpoint."""
        found = (self.root / "checkpoints").glob("*.json")
        return sorted(Digest("sha256", path.stem) for path in found)

    def add(
        self,
        folder: Path,
        source: ModelRef,
        on_progress: Progress = _silent,
        *,
        owned: bool = False,
        promised: Mapping[str, Digest] = MappingProxyType({}),
    ) -> Manifest:
        """Store a folder's files; what is here already is not stored again.

        A checkpoint appears whole or not at all; one that was damaged is replaced.

        Args:
            folder: Files to take.
            source: Where they come from.
            on_progress: Told (bytes hashed, bytes in all).
            owned: Nobody else will write to these files, so they are linked, not copied.
            promised: Digests that files must have, as their source names them.

        Raises:
            DigestMismatch: A file is not what was promised; nothing is stored.
        """
        put = os.link if owned else shutil.copyfile
        with disk_errors(self.root), locked(self.root / "lock", fcntl.LOCK_SH):
            manifest = manifest_of(folder, source, on_progress)
            _require(manifest, promised)
            place = self.root / "checkpoints"
            place.mkdir(parents=True, exist_ok=True)
            scratch = Path(tempfile.mkdtemp(prefix=".new-", dir=place))
            try:
                for entry in manifest.files:
                    self._link(folder / entry.path, entry, scratch / entry.path, put)
                self._publish(scratch, manifest)
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
        return manifest

    def used_at(self, root: Digest) -> float:
        """Return when a checkpoint was last pulled, in seconds since the epoch."""
        return self._manifest_path(root.hex).stat().st_mtime

    def touch(self, root: Digest) -> None:
        """Say that a checkpoint is used now, so that `gc` leaves it alone for a while."""
        os.utime(self._manifest_path(root.hex))

    def gc(self, keep: Collection[Digest]) -> int:
        """Remove every checkpoint not in `keep`, and unused objects; return the bytes freed.

        Waits until nobody adds a checkpoint: an object that is not yet linked looks unused.
        """
        freed = 0
        with locked(self.root / "lock"):
            for left in (self.root / "checkpoints").glob(".new-*"):  # of a process that was killed
                shutil.rmtree(left, ignore_errors=True)
            for root in self.roots():
                if root not in keep:
                    self._manifest_path(root.hex).unlink()
                    shutil.rmtree(self.root / "checkpoints" / root.hex, ignore_errors=True)
            for path in (self.root / "objects").glob("*/*"):
                if path.stat().st_nlink == 1:
                    freed += path.stat().st_size
                    path.unlink()
        return freed

    def _manifest_path(self, hex_root: str) -> Path:
        return self.root / "checkpoints" / f"{hex_root}.json"

    def _link(self, file: Path, entry: FileEntry, target: Path, put: _Put) -> None:
        blob = self.root / "objects" / entry.digest.hex[:2] / entry.digest.hex
        blob.parent.mkdir(parents=True, exist_ok=True)
        damaged = blob.exists() and hash_file(blob) != entry.digest
        if damaged or not blob.exists():
            scratch = blob.with_name(f".{blob.name}.{os.getpid()}")
            scratch.unlink(missing_ok=True)
            put(file, scratch)
            scratch.chmod(0o444)
            scratch.replace(blob)
        target.parent.mkdir(parents=True, exist_ok=True)
        os.link(blob, target)

    def _publish(self, scratch: Path, manifest: Manifest) -> None:
        final = self.root / "checkpoints" / manifest.root.hex
        path = self._manifest_path(manifest.root.hex)
        if final.exists():
            try:
                verify(final, manifest)
            except DigestMismatch:
                shutil.rmtree(final)
        if not final.exists():
            scratch.rename(final)
        new = path.with_name(f".{path.name}.{os.getpid()}")
        new.write_text(manifest.to_json())
        new.replace(path)


def _require(manifest: Manifest, promised: Mapping[str, Digest]) -> None:
    altered = [f for f in manifest.files if promised.get(f.path, f.digest) != f.digest]
    if altered:
        told = ", ".join(f"{f.path} is {f.digest}, not {promised[f.path]}" for f in altered)
        raise DigestMismatch(
            f"{manifest.source}: altered on the way: {told}",
            hint="run again; if it happens again, do not trust the Hub's mirror or the network",
        )


def require_space(where: Path, needed_bytes: int) -> None:
    """Raise `DiskFull` when the disk of a folder, made or not, has less free than is needed."""
    place = next(p for p in (where, *where.parents) if p.exists())
    free = shutil.disk_usage(place).free
    if needed_bytes > free:
        raise DiskFull(
            f"{where}: {needed_bytes / 1e9:.1f} GB are needed, {free / 1e9:.1f} GB are free",
            hint="free space, or set PENSTOCK_HOME to another disk",
        )
