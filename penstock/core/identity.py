"""Names that identify an artifact everywhere: in the store, in MLflow, in a pod spec."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Literal, get_args

from penstock.core.errors import ConfigurationError

Scheme = Literal["hf", "file", "models", "s3", "pvc"]
SCHEMES: tuple[Scheme, ...] = get_args(Scheme)

_HF = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@[\w./-]+)?")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, order=True, slots=True)
class Digest:
    """Content address of a file or a tree. `Digest.parse(str(d)) == d` always holds."""

    algorithm: str
    hex: str

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.hex}"

    @property
    def short(self) -> str:
        """The first twelve hex digits: enough for people, never for comparison."""
        return self.hex[:12]

    @classmethod
    def parse(cls, text: str) -> Digest:
        """Read `sha256:<64 hex digits>`."""
        algorithm, _, value = text.partition(":")
        if algorithm != "sha256" or not _SHA256.fullmatch(value.lower()):
            raise ConfigurationError(f"not a sha256 digest: {text!r}")
        return cls(algorithm, value.lower())

    @classmethod
    def of(cls, data: bytes) -> Digest:
        """Return the SHA-256 of bytes in memory."""
        return cls("sha256", hashlib.sha256(data).hexdigest())


@dataclass(frozen=True, order=True, slots=True)
class ModelRef:
    """Where a model comes from. `ModelRef.parse(str(r)) == r` always holds.

    `hf://org/name@revision`, `file:///folder`, `models:/name@alias`, `s3://bucket/prefix`,
    `pvc://claim/path`. A missing Hub revision means `main`.
    """

    scheme: Scheme
    path: str
    revision: str = ""

    def __str__(self) -> str:
        at = f"@{self.revision}" if self.revision else ""
        return f"{self.scheme}:{'' if self.scheme == 'models' else '//'}{self.path}{at}"

    @property
    def pinned(self) -> bool:
        """True when the revision is a commit, which never changes what it means."""
        return bool(_COMMIT.fullmatch(self.revision))

    def at(self, revision: str) -> ModelRef:
        """Return the same model at another revision."""
        return ModelRef(self.scheme, self.path, revision)

    @classmethod
    def parse(cls, text: str) -> ModelRef:
        """Read a reference; the error says which forms there are."""
        scheme, _, rest = text.partition(":")
        if scheme == "hf" and rest.startswith("//") and _HF.fullmatch(rest[2:]):
            path, _, revision = rest[2:].partition("@")
            return cls("hf", path, revision)
        if scheme == "models" and re.fullmatch(r"/[^/@]+(@[\w-]+|/\d+)", rest):
            path, _, revision = rest.partition("@")
            return cls("models", path, revision)
        if scheme == "file" and rest.startswith("///") and len(rest) > 3:
            return cls("file", rest[2:])
        if scheme == "s3" and re.fullmatch(r"//[^/@]+(/.*)?", rest):
            return cls("s3", rest[2:])
        if scheme == "pvc" and re.fullmatch(r"//[^/@]+/.+", rest):
            return cls("pvc", rest[2:])
        raise ConfigurationError(
            f"not a model reference: {text!r}; allowed: hf://ORG/NAME@REVISION, file:///FOLDER, "
            "models:/NAME@ALIAS, s3://BUCKET/PREFIX, pvc://CLAIM/PATH"
        )
