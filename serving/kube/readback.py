"""Whether an object that was read back holds what was written. No I/O."""

from __future__ import annotations

from typing import Any

from serving.cluster import Object

_WRITTEN = ("labels", "annotations", "finalizers", "ownerReferences")


def holds(found: Object, written: Object) -> bool:
    """Return whether a replaced object is there as written, nothing more and nothing less.

    What replaces was read before, with all its defaults, so it comes back equal. Where it does
    not, the answer is no: the caller reads and decides again, which harms nobody.
    """
    return _content(found) == _content(written)


def holds_status(found: Object, written: Object) -> bool:
    """Return whether the status is there as written."""
    return bool(found.get("status", {}) == written.get("status", {}))


def includes(found: Any, written: Any) -> bool:
    """Return whether a new object holds everything that was written; defaults may be added."""
    if isinstance(written, dict):
        return isinstance(found, dict) and all(
            key in found and includes(found[key], value) for key, value in written.items()
        )
    if isinstance(written, list):
        return (
            isinstance(found, list)
            and len(found) == len(written)
            and all(map(includes, found, written))
        )
    return bool(found == written)


def _content(obj: Object) -> Object:
    metadata = {key: obj["metadata"].get(key) or None for key in _WRITTEN}
    rest = {k: v for k, v in obj.items() if k not in ("metadata", "status", "kind", "apiVersion")}
    return {**rest, "metadata": metadata}
