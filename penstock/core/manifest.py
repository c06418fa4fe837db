"""The list of a checkpoint's files with their digests: what was pulled is what is served."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from penstock.core.errors import ConfigurationError
from penstock.core.identity import Digest, ModelRef


@dataclass(frozen=True, order=True, slots=True)
class FileEntry:
    """One file of a checkpoint."""

    path: str
    """Relative to the checkpoint's folder, `/` between parts."""

    size_bytes: int
    digest: Digest


@dataclass(frozen=True, slots=True)
class Manifest:
    """A checkpoint's files, sorted by path. `Manifest.from_json(m.to_json()) == m`."""

    source: ModelRef
    """Where it came from, pinned: a commit for the Hub."""

    files: tuple[FileEntry, ...]

    @property
    def root(self) -> Digest:
        """Return one digest for the whole tree: the identity of the checkpoint.

        SHA-256 over one line per file, `<digest> <size> <path>`, in path order; the source is
        not part of it, so the same bytes from two places are the same checkpoint.
        """
        lines = [f"{f.digest} {f.size_bytes} {f.path}\n" for f in sorted(self.files)]
        return Digest.of("".join(lines).encode())

    @property
    def size_bytes(self) -> int:
        """Sum of the files."""
        return sum(f.size_bytes for f in self.files)

    def to_json(self) -> str:
        """Return the document that is stored beside the checkpoint."""
        files = [
            {"path": f.path, "size_bytes": f.size_bytes, "digest": str(f.digest)}
            for f in self.files
        ]
        body = {"source": str(self.source), "root": str(self.root), "files": files}
        return json.dumps(body, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Manifest:
        """Read a manifest; its own root digest must match its files."""
        try:
            body: dict[str, Any] = json.loads(text)
            files = tuple(
                FileEntry(f["path"], int(f["size_bytes"]), Digest.parse(f["digest"]))
                for f in body["files"]
            )
            manifest = cls(ModelRef.parse(body["source"]), tuple(sorted(files)))
            recorded = Digest.parse(body["root"])
        except (ValueError, KeyError, TypeError) as problem:
            raise ConfigurationError(f"not a manifest: {problem!r}") from problem
        if recorded != manifest.root:
            raise ConfigurationError(
                f"manifest contradicts itself: records root {recorded}, its files give "
                f"{manifest.root}"
            )
        return manifest
