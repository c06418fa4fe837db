"""How a published checkpoint looks, whatever holds it: a folder per root digest, manifest last.

```
<place>/<root, hex>/…                         the checkpoint's files
<place>/<root, hex>/.penstock-manifest.json   its manifest: what it lists is complete
```
"""

from __future__ import annotations

import threading
from pathlib import Path

from penstock.core.errors import DigestMismatch
from penstock.core.identity import Digest
from penstock.core.manifest import FileEntry, Manifest
from registry.store import Progress, hash_file, verify

MANIFEST = ".penstock-manifest.json"


def read(folder: Path, root: Digest) -> Manifest | None:
    """Return the manifest that lies in a folder; None if there is none.

    Raises:
        DigestMismatch: It is the manifest of another checkpoint.
    """
    path = folder / MANIFEST
    return matching(path.read_text(), root, str(path)) if path.is_file() else None


def matching(text: str, root: Digest, where: str) -> Manifest:
    """Return a manifest, which must be the one of `root`.

    Args:
        text: The document.
        root: The checkpoint it must list.
        where: Where it is from, for the error.

    Raises:
        DigestMismatch: It lists another checkpoint.
    """
    manifest = Manifest.from_json(text)
    if manifest.root != root:
        raise DigestMismatch(
            f"{where}: lists the checkpoint {manifest.root}, but {root} is to be served",
            hint="the place was overwritten: publish the checkpoint again",
        )
    return manifest


def verify_published(folder: Path, manifest: Manifest) -> None:
    """Raise `DigestMismatch` unless a folder holds exactly these files, and their manifest."""
    path = folder / MANIFEST
    if path.is_file():
        own = FileEntry(MANIFEST, path.stat().st_size, hash_file(path))
        manifest = Manifest(manifest.source, (*manifest.files, own))
    verify(folder, manifest)


class Teller:
    """Adds up what threads have done."""

    def __init__(self, manifest: Manifest, on_progress: Progress) -> None:
        self._total, self._done = manifest.size_bytes, 0
        self._on_progress, self._lock = on_progress, threading.Lock()

    def __call__(self, size_bytes: int) -> None:
        """Say that so many bytes more are done."""
        with self._lock:
            self._done += size_bytes
            self._on_progress(self._done, self._total)
