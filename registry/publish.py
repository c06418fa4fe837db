"""Brings a checkpoint to where pods fetch it: S3, or a folder that is mounted as a claim.

It is named by its root digest, and its manifest goes last (`registry.published`): a place that has
the manifest has the checkpoint. So publishing again is quick; to S3, what broke off is resumed.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from penstock.core.errors import ConfigurationError, DigestMismatch, disk_errors
from penstock.core.manifest import Manifest
from registry.published import MANIFEST, Teller, read, verify_published
from registry.s3 import Bucket, S3Access, client
from registry.store import Progress, locked


class Place(Protocol):
    """Where published checkpoints are."""

    def has(self, manifest: Manifest) -> bool:
        """Return whether a checkpoint is there, whole."""
        ...

    def put(self, folder: Path, manifest: Manifest, on_progress: Progress) -> None:
        """Bring a checkpoint there; it appears whole or not at all."""
        ...


def _untold(_done: int, _total: int) -> None:
    """Progress for nobody."""


def publish(
    folder: Path,
    manifest: Manifest,
    uri: str,
    access: S3Access | None = None,
    on_progress: Progress = _untold,
) -> str:
    """Bring a checkpoint to a place, unless it is there; return the URI that a version is given.

    Args:
        folder: The checkpoint's files.
        manifest: Which they are.
        uri: `s3://BUCKET/PREFIX`, `file:///FOLDER`, or `pvc://CLAIM/PATH=/FOLDER` for a claim that
            is mounted here at FOLDER.
        access: How S3 is reached; by default, as boto3 finds out.
        on_progress: Told (bytes done, bytes in all).

    Raises:
        ConfigurationError: No such place.
        DigestMismatch: A file of the folder is not what the manifest says; nothing is published.
        StoreError: The place refused, or cannot be reached; running again resumes.
    """
    base, place = place_of(uri, access or S3Access())
    if not place.has(manifest):
        place.put(folder, manifest, on_progress)
    on_progress(manifest.size_bytes, manifest.size_bytes)
    return f"{base}/{manifest.root.hex}"


def place_of(uri: str, access: S3Access) -> tuple[str, Place]:
    """Return the URI that checkpoints' URIs begin with, and the place."""
    scheme, _, rest = uri.rstrip("/").partition("://")
    base, _, mounted = rest.partition("=")
    if scheme == "s3" and rest:
        bucket, _, prefix = rest.partition("/")
        return f"s3://{rest}", Bucket(client(access), bucket, prefix)
    if scheme == "file" and rest.startswith("/"):
        return f"file://{rest}", _Folder(Path(rest))
    if scheme == "pvc" and base.partition("/")[0] and mounted.startswith("/"):
        subfolder = base.partition("/")[2]
        return f"pvc://{base}", _Folder(Path(mounted) / subfolder)
    raise ConfigurationError(
        f"cannot publish to {uri!r}; allowed: s3://BUCKET/PREFIX, file:///FOLDER, "
        "pvc://CLAIM/PATH=/FOLDER where the claim is mounted at FOLDER"
    )


@dataclass(frozen=True, slots=True)
class _Folder:
    """A folder: a checkpoint is copied beside its place, verified, and renamed into it."""

    root: Path

    def has(self, manifest: Manifest) -> bool:
        folder = self.root / manifest.root.hex
        try:
            if read(folder, manifest.root) is None:
                return False
            verify_published(folder, manifest)
        except (DigestMismatch, ConfigurationError):
            return False
        return True

    def put(self, folder: Path, manifest: Manifest, on_progress: Progress) -> None:
        tell, name = Teller(manifest, on_progress), manifest.root.hex
        with disk_errors(self.root), locked(self.root / f".lock-{name}"):
            if self.has(manifest):
                return  # whoever had the lock has done it
            scratch = self.root / f".new-{name}"
            shutil.rmtree(scratch, ignore_errors=True)  # of one that was killed
            scratch.mkdir()
            try:
                for entry in manifest.files:
                    (scratch / entry.path).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(folder / entry.path, scratch / entry.path)
                    tell(entry.size_bytes)
                verify_published(scratch, manifest)
                (scratch / MANIFEST).write_text(manifest.to_json())
                for path in (scratch, *scratch.rglob("*")):  # pods run as another user
                    path.chmod(0o755 if path.is_dir() else 0o644)
                self._rename(scratch, self.root / manifest.root.hex)
            finally:
                shutil.rmtree(scratch, ignore_errors=True)

    def _rename(self, scratch: Path, final: Path) -> None:
        if final.exists():  # damaged, or `has` would have found it
            damaged = Path(tempfile.mkdtemp(prefix=".old-", dir=self.root))
            final.rename(damaged / final.name)
            scratch.rename(final)
            shutil.rmtree(damaged, ignore_errors=True)
        else:
            scratch.rename(final)
