"""Where a data set comes from: a file, S3, a mounted claim, a Hub data set, or a SQL query.

`DataRef.parse(str(r)) == r` always holds. A query names the environment variable that has the
connection's URL, never the URL itself: passwords stay out of specs, logs and pipelines.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Kind = Literal["file", "s3", "pvc", "hub", "sql"]

ALLOWED = (
    "a path, s3://BUCKET/KEY, pvc://CLAIM/FILE=/FOLDER, hf://datasets/ORG/NAME@REVISION/FILE or "
    "sql:VARIABLE:SELECT ... ORDER BY ..."
)
_HUB = re.compile(r"datasets/([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(@[\w.-]+)?(/.+)?")
_SQL = re.compile(r"([A-Z][A-Z0-9_]*):(.+)", re.DOTALL)
_ORDERED = re.compile(r"\border\s+by\b", re.IGNORECASE)
_READS = re.compile(r"\s*(select|with)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class DataRef:
    """A data set's origin."""

    kind: Kind
    where: str
    """File: a path; s3: `BUCKET/KEY`; pvc: `CLAIM/FILE`; hub: `ORG/NAME`; sql: a variable."""

    what: str = ""
    """pvc: the folder it is mounted at; hub: a file; sql: the query."""

    revision: str = ""
    """Of a Hub data set; empty: main."""

    def __str__(self) -> str:
        match self.kind:
            case "file":
                return self.where
            case "s3":
                return f"s3://{self.where}"
            case "pvc":
                return f"pvc://{self.where}={self.what}"
            case "hub":
                at = f"@{self.revision}" if self.revision else ""
                return f"hf://datasets/{self.where}{at}{'/' if self.what else ''}{self.what}"
            case "sql":
                return f"sql:{self.where}:{self.what}"

    @property
    def told(self) -> str:
        """What messages call it: a query goes by the name of its connection."""
        return f"sql:{self.where}" if self.kind == "sql" else str(self)

    @classmethod
    def parse(cls, text: str) -> DataRef:
        """Read a reference; ValueError says what is allowed."""
        scheme, found, rest = text.partition("://")
        if text.startswith("sql:"):
            return _query(text)
        if not found:
            return cls("file", text)
        if scheme == "file" and rest.startswith("/"):
            return cls("file", rest)
        if scheme == "s3" and re.fullmatch(r"[^/]+/.+", rest):
            return cls("s3", rest)
        if scheme == "pvc" and (match := re.fullmatch(r"([^/=]+/[^=]+)=(/.+)", rest)):
            return cls("pvc", match[1], match[2])
        if scheme == "hf" and (match := _HUB.fullmatch(rest)):
            return cls("hub", match[1], (match[3] or "")[1:], (match[2] or "")[1:])
        raise ValueError(ALLOWED)


def _query(text: str) -> DataRef:
    match = _SQL.fullmatch(text.removeprefix("sql:"))
    if match is None:
        raise ValueError(f"{ALLOWED}; VARIABLE in the environment has the connection's URL")
    if not _READS.match(match[2]):
        raise ValueError("a query that begins with SELECT or WITH: nothing is written")
    if not _ORDERED.search(match[2]):
        raise ValueError("a query with ORDER BY: else the same rows would have another digest")
    return DataRef("sql", match[1], match[2])
