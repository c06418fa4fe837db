"""Names: a version's, so that it is published once; a run's, so that it is found again. Pure."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

_SHORT = 12
_VERSION = re.compile(r"^(?P<penstock>\d+\.\d+\.\d+\S*?)-(?P<digest>[0-9a-f]{12})$")


def digest(documents: Iterable[Mapping[str, Any]]) -> str:
    """Return the content hash of compiled documents, in hex: the order of keys does not count."""
    text = json.dumps(list(documents), sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def version_name(penstock: str, content: str) -> str:
    """Return what a version is called: Penstock's version, and the hash of what it runs.

    Args:
        penstock: Penstock's version.
        content: The content hash of the IR.
    """
    return f"{penstock}-{content[:_SHORT]}"


def penstock_of(name: str) -> str | None:
    """Return the version of Penstock that published a version; None for one that others did."""
    found = _VERSION.match(name)
    return found["penstock"] if found else None


def run_name(base: str, now: datetime, token: str) -> str:
    """Return a name that no other run has: it is how a run is found whose answer got lost.

    Args:
        base: What a person calls it.
        now: When it is submitted.
        token: Some random characters.
    """
    return f"{base}-{now:%Y%m%d-%H%M%S}-{token}"
