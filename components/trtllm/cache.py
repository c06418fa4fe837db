"""Finished builds on a disk, each under its key; whatever else lies there was never finished.

```
<root>/<key>/key.json        what went in; its time says when the build was last used
<root>/<key>/manifest.json   every file below `files`, with its digest
<root>/<key>/files/          what is served
<root>/<key>/verdict.json    whether it may replace its parent, once that was judged
<root>/.work/<key>/          what the stages of an unfinished build have made so far
<root>/.locks/<key>          held while somebody builds, and says who; shared while it is used
```
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from components.trtllm.key import BuildKey
from penstock.core.errors import ConfigurationError, DigestMismatch, StoreError
from penstock.core.identity import Digest, ModelRef
from penstock.core.manifest import Manifest
from registry.store import manifest_of, verify

Tell = Callable[[str], None]
_LOOK_EVERY_S = 0.1
_TELL_EVERY_S = 10.0
_REBUILD = "build it again: penstock engine build"


@dataclass(frozen=True, slots=True)
class Entry:
    """One finished build."""

    folder: Path
    key: BuildKey
    manifest: Manifest

    @property
    def files(self) -> Path:
        """What is mounted where it is served."""
        return self.folder / "files"

    @property
    def built_at(self) -> float:
        """When it was finished, in seconds since the epoch."""
        return (self.folder / "manifest.json").stat().st_mtime

    @property
    def used_at(self) -> float:
        """When somebody last built it or found it, in seconds since the epoch."""
        return (self.folder / "key.json").stat().st_mtime

    @property
    def verdict(self) -> dict[str, Any] | None:
        """What the guard said of these very files; None while they are not judged."""
        try:
            found: dict[str, Any] = json.loads((self.folder / "verdict.json").read_text())
        except (OSError, ValueError):
            return None
        return found if found.get("root") == str(self.manifest.root) else None

    @property
    def servable(self) -> bool:
        """Whether it was judged, and may replace its parent."""
        verdict = self.verdict
        return verdict is not None and verdict["outcome"] == "accept"

    def judged(self, verdict: Mapping[str, Any]) -> None:
        """Keep a verdict beside the files; the next build of the key begins without one."""
        new = self.folder / f".verdict.{os.getpid()}"
        new.write_text(json.dumps({**verdict, "root": str(self.manifest.root)}, indent=1) + "\n")
        new.replace(self.folder / "verdict.json")

    def verify(self) -> None:
        """Raise `DigestMismatch` unless every file is what was built."""
        try:
            verify(self.files, self.manifest)
        except DigestMismatch as problem:
            raise DigestMismatch(str(problem), hint=_REBUILD) from problem


def read_entry(folder: Path) -> Entry:
    """Return the build in a folder; its files are not read.

    Raises:
        StoreError: No finished build is there, or its papers do not belong to it.
    """
    try:
        key = BuildKey.from_json((folder / "key.json").read_text())
        manifest = Manifest.from_json((folder / "manifest.json").read_text())
    except OSError as problem:
        raise StoreError(f"{folder}: no finished build: {problem}", hint=_REBUILD) from problem
    except ConfigurationError as problem:
        raise DigestMismatch(f"{folder}: {problem}", hint=_REBUILD) from problem
    return Entry(folder, key, manifest)


@dataclass(frozen=True, slots=True)
class Unfinished:
    """A build that is under way, or was left."""

    hex: str
    owner: str
    """Who builds it; empty when nobody does, and the next try goes on."""


class EngineCache:
    """Builds below one folder, for all processes that share it.

    Args:
        root: Made when something is built.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def entry(self, digest: Digest) -> Entry:
        """Return a finished build; `StoreError` if there is none."""
        entry = read_entry(self.root / digest.hex)
        if entry.key.digest != digest:
            raise DigestMismatch(
                f"{entry.folder}: key.json is that of {entry.key.digest.short}", hint=_REBUILD
            )
        return entry

    def find(self, text: str) -> Digest:
        """Return the one build whose key begins with a text."""
        found = [path.name for path in self._finished() if path.name.startswith(text)]
        if len(found) != 1:
            told = f"{len(found)} builds begin with" if found else "no finished build is"
            raise StoreError(f"{told} {text!r} in {self.root}", hint="penstock engine list")
        return Digest("sha256", found[0])

    def digests(self) -> list[Digest]:
        """Return every finished build."""
        return [Digest("sha256", path.name) for path in self._finished()]

    def unfinished(self) -> list[Unfinished]:
        """Return what is being built, or was left unfinished."""
        names = sorted(path.name for path in (self.root / ".work").glob("[0-9a-f]*"))
        return [Unfinished(name, self._owner(name)) for name in names]

    @contextmanager
    def used(self, digest: Digest, tell: Tell) -> Iterator[Entry]:
        """Yield a finished build that nobody removes or replaces meanwhile; others may use it."""
        with self._lock(digest).open("a+") as lock:
            _wait(lock, digest, tell, fcntl.LOCK_SH)
            entry = self.entry(digest)
            self.touch(digest)
            yield entry

    def touch(self, digest: Digest) -> None:
        """Say that a build is used now, so that `gc` leaves it alone for a while."""
        os.utime(self.root / digest.hex / "key.json")

    def everything(self) -> list[Digest]:
        """Return every key that something lies here of: finished, unfinished, or left by a kill."""
        names = {path.name for path in self._finished()} | {left.hex for left in self.unfinished()}
        for form in (".new-", ".old-"):
            names |= {path.name.removeprefix(form) for path in self.root.glob(f"{form}*")}
        return [Digest("sha256", name) for name in sorted(names)]

    def places(self, digest: Digest) -> list[Path]:
        """Return the folders of a key that are there; the finished build's comes first."""
        work = self.root / ".work" / digest.hex
        of_it = (self.root / digest.hex, work, self._scratch(digest), self._old(digest))
        return [path for path in of_it if path.exists()]

    @contextmanager
    def unclaimed(self, digest: Digest) -> Iterator[bool]:
        """Keep others from a key for a moment; False where somebody builds or uses it."""
        with self._lock(digest).open("a+") as lock:
            yield _taken(lock, fcntl.LOCK_EX)

    def withdraw(self, digest: Digest) -> None:
        """Take a finished build out of sight, whole; only within `unclaimed`."""
        shutil.rmtree(self._old(digest), ignore_errors=True)
        with suppress(FileNotFoundError):
            (self.root / digest.hex).rename(self._old(digest))
            _flush_folder(self.root)

    @contextmanager
    def claimed(self, digest: Digest, tell: Tell) -> Iterator[Path]:
        """Hold the right to build, waiting for who has it; yields the folder to work in.

        The lock ends with the process that holds it, however that ends.
        """
        with self._lock(digest).open("a+") as lock:
            _wait(lock, digest, tell, fcntl.LOCK_EX)
            lock.truncate(0)
            lock.write(json.dumps({"pid": os.getpid(), "host": socket.gethostname()}))
            lock.flush()
            for left in (self._scratch(digest), self._old(digest)):  # of one that was killed
                shutil.rmtree(left, ignore_errors=True)
            work = self.root / ".work" / digest.hex
            work.mkdir(parents=True, exist_ok=True)
            yield work

    def publish(
        self, key: BuildKey, source: ModelRef, folders: Mapping[str, Path], files: Mapping[str, str]
    ) -> Entry:
        """Make a build appear, whole; only who claimed its key may call this.

        Args:
            key: What went in.
            source: The parent.
            folders: Name to folder, on the same file system: its files are linked.
            files: Name to content.
        """
        scratch, final = self._scratch(key.digest), self.root / key.digest.hex
        try:
            (scratch / "files").mkdir(parents=True)
            for name, folder in folders.items():
                shutil.copytree(folder, scratch / "files" / name, copy_function=os.link)
            for name, text in files.items():
                (scratch / "files" / name).write_text(text)
            manifest = manifest_of(scratch / "files", source)
            (scratch / "manifest.json").write_text(manifest.to_json())
            (scratch / "key.json").write_text(key.to_json())
            _flush(scratch)
            if final.exists():  # damaged, or it would not have been built again
                final.rename(self._old(key.digest))
            scratch.rename(final)
            _flush_folder(self.root)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
            shutil.rmtree(self._old(key.digest), ignore_errors=True)
        shutil.rmtree(self.root / ".work" / key.digest.hex, ignore_errors=True)
        return Entry(final, key, manifest)

    def _lock(self, digest: Digest) -> Path:
        path = self.root / ".locks" / digest.hex
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def _scratch(self, digest: Digest) -> Path:
        return self.root / f".new-{digest.hex}"

    def _old(self, digest: Digest) -> Path:
        return self.root / f".old-{digest.hex}"

    def _finished(self) -> list[Path]:
        return sorted(path for path in self.root.glob("[0-9a-f]*") if path.is_dir())

    def _owner(self, name: str) -> str:
        try:
            with (self.root / ".locks" / name).open("a+") as lock:
                return "" if _taken(lock, fcntl.LOCK_SH) else _told(lock)
        except FileNotFoundError:
            return ""


def _wait(lock: TextIO, digest: Digest, tell: Tell, how: int) -> None:
    began = time.monotonic()
    told = -_TELL_EVERY_S
    while not _taken(lock, how):
        waited = time.monotonic() - began
        if waited - told >= _TELL_EVERY_S:
            told = waited
            tell(f"waiting for {_told(lock)}, which has {digest.short} ({waited:.0f} s so far)")
        threading.Event().wait(_LOOK_EVERY_S)


def _taken(lock: TextIO, how: int) -> bool:
    try:
        fcntl.flock(lock, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _told(lock: TextIO) -> str:
    lock.seek(0)
    try:
        owner = json.loads(lock.read())
        return f"process {owner['pid']} on {owner['host']}"
    except (ValueError, KeyError, TypeError):
        return "another process"  # it has only just begun


def _flush(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir():
            _flush_folder(path)
        else:
            with path.open("rb") as file:
                os.fsync(file.fileno())
    _flush_folder(folder)


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
