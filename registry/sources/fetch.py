"""Brings a data set here: `fetched(ref, ...)` returns a JSONL file and its digest."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from penstock.core.errors import ConfigurationError
from penstock.core.identity import Digest
from penstock.core.settings import Settings
from penstock.core.sources import DataRef
from registry.store import hash_file


@dataclass(frozen=True, slots=True)
class Fetched:
    """A data set that is here."""

    path: Path
    digest: Digest
    """Of the file: the same rows, the same digest."""

    source: str
    """Where it came from, pinned as far as its kind can be."""


def fetched(name: str, ref: DataRef, settings: Settings, env: Mapping[str, str]) -> Fetched:
    """Return a data set as a file here. Files stay where they are; others are kept by digest.

    Args:
        name: What the spec calls it, for messages: `data.train`.
        ref: Where it is.
        settings: Where data sets are kept, and how the Hub and S3 are reached.
        env: Where the connections of queries are.

    Raises:
        ConfigurationError: It is not there, or what its kind needs is missing.
        HubError: The Hub refused.
        StoreError: S3 or the database refused, or cannot be reached.
    """
    if ref.kind in ("file", "pvc"):
        path = _mounted(name, ref) if ref.kind == "pvc" else Path(ref.where)
        if not path.is_file():
            raise ConfigurationError(
                f"{name}: no such file: {path}",
                hint="it was there before? put it back, or correct data in model.yaml",
            )
        return Fetched(path, hash_file(path), str(ref))
    if ref.kind == "hub":
        from registry.sources import hub

        commit, file, bring = hub.find(name, ref, settings)
        pinned = DataRef("hub", ref.where, file, commit)
        return _kept(settings, str(pinned), bring)
    if ref.kind == "s3":
        from registry.sources import s3

        return _kept(settings, str(ref), lambda target: s3.bring(name, ref, settings, target))
    from registry.sources import sql

    return _kept(settings, ref.told, lambda target: sql.bring(name, ref, env, target))


def _mounted(name: str, ref: DataRef) -> Path:
    claim, _, file = ref.where.partition("/")
    folder = Path(ref.what)
    if not folder.is_dir():
        raise ConfigurationError(
            f"{name}: claim {claim} is not mounted at {folder} here",
            hint="mount it there where steps run, or correct the folder behind =",
        )
    return folder / file


def _kept(settings: Settings, source: str, bring: Callable[[Path], None]) -> Fetched:
    """Keep what `bring` writes under its digest: what a run began with stays as it was."""
    folder = settings.home / "data"
    folder.mkdir(parents=True, exist_ok=True)
    handle, scratch = tempfile.mkstemp(dir=folder, prefix=".incoming-")
    os.close(handle)
    path = Path(scratch)
    try:
        bring(path)
        digest = hash_file(path)
        target = folder / f"{digest.hex}.jsonl"
        path.replace(target)
    finally:
        path.unlink(missing_ok=True)
    return Fetched(target, digest, source)
