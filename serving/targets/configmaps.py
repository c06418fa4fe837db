"""What a rollout keeps on a cluster beside its record: ConfigMaps, so that no volume is needed.

An object may hold about a megabyte, and every write sends all of it; so events lie in chunks, and
these are compressed: one look is much like the one before.
"""

from __future__ import annotations

import base64
import gzip
from collections.abc import Iterable, Iterator

from penstock.core.errors import Conflict
from serving.cluster import Cluster, Object
from serving.manifests import NAME

KEPT = "penstock.dev/kept"
"""Label: what a ConfigMap is kept for."""

_EVENTS, _PROMPTS = "rollout-events", "rollout-prompts"
_CHUNK_BYTES = 96 * 1024
_TEXT_BYTES = 2 * 1024 * 1024
"""A chunk is full when it is as large as the first of these, or its text as the second."""

_CHUNKS = 64
"""Per name, 6 MB at most, which hold up to 128 MB of events; what is older goes."""

_PART_BYTES = 512 * 1024
_LEVEL = 3
"""Of gzip: a second of looks must not cost one."""


class ConfigMapLog:
    """An `EventLog` of one namespace.

    Args:
        cluster: Where the ConfigMaps are.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._newest: dict[str, int] = {}

    def append(self, name: str, line: str) -> None:
        """Write a line; several writers wait for each other."""
        number = self._newest.get(name)
        if number is None:
            number = max((_number(obj) for obj in self._chunks(name)), default=0)
        while True:
            try:
                number = self._write(name, number, line)
            except Conflict:
                continue  # another owner wrote meanwhile: read again
            self._newest[name] = number
            return

    def lines(self, name: str) -> Iterator[str]:
        """Yield every line."""
        for obj in sorted(self._chunks(name), key=_number):
            yield from _text(obj).splitlines()

    def names(self) -> list[str]:
        """Return the names that have lines."""
        found = self._cluster.list("ConfigMap", labels={KEPT: _EVENTS})
        return sorted({obj["metadata"]["labels"][NAME] for obj in found})

    def _write(self, name: str, number: int, line: str) -> int:
        chunk = self._cluster.get("ConfigMap", _chunk_name(name, number))
        if chunk is None:
            made = _kept(_chunk_name(name, number), name, _EVENTS)
            self._cluster.create({**made, "binaryData": {"lines": _packed(f"{line}\n")}})
            self._cluster.delete("ConfigMap", _chunk_name(name, number - _CHUNKS))
            return number
        text = _text(chunk)
        longer = f"{text}{line}\n"
        packed = _packed(longer)
        if text and (len(packed) > _CHUNK_BYTES or len(longer) > _TEXT_BYTES):
            return self._write(name, number + 1, line)
        written = {key: value for key, value in chunk.items() if key != "data"}
        self._cluster.replace({**written, "binaryData": {"lines": packed}})
        return number

    def _chunks(self, name: str) -> list[Object]:
        return self._cluster.list("ConfigMap", labels={KEPT: _EVENTS, NAME: name})


def keep_prompts(cluster: Cluster, candidate: str, text: str) -> None:
    """Keep a candidate's prompts, compressed; what was kept for it before is replaced."""
    packed = _packed(text)
    parts = [packed[i : i + _PART_BYTES] for i in range(0, len(packed), _PART_BYTES)]
    forget_prompts(cluster, candidate)
    for number, part in enumerate(parts):
        body = {"part": part, "of": str(len(parts))}
        cluster.create(_kept(_part_name(candidate, number), candidate, _PROMPTS, **body))


def kept_prompts(cluster: Cluster, candidate: str) -> str | None:
    """Return what was kept for a candidate; None where a part is missing, or all."""
    parts = list(_parts(cluster, candidate))
    if not parts or len(parts) != int(parts[0]["data"]["of"]):
        return None
    return _unpacked("".join(part["data"]["part"] for part in parts))


def forget_prompts(cluster: Cluster, candidate: str) -> None:
    """Remove what was kept for a candidate."""
    for part in _parts(cluster, candidate):
        cluster.delete("ConfigMap", part["metadata"]["name"])


def _parts(cluster: Cluster, candidate: str) -> Iterable[Object]:
    number = 0
    while (part := cluster.get("ConfigMap", _part_name(candidate, number))) is not None:
        yield part
        number += 1


def _kept(name: str, model: str, what: str, **data: str) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "labels": {NAME: model, KEPT: what}},
        **({"data": data} if data else {}),
    }


def _packed(text: str) -> str:
    return base64.b64encode(gzip.compress(text.encode(), _LEVEL, mtime=0)).decode()


def _unpacked(packed: str) -> str:
    return gzip.decompress(base64.b64decode(packed)).decode()


def _chunk_name(name: str, number: int) -> str:
    return f"penstock-events-{name}-{number:05d}"


def _part_name(candidate: str, number: int) -> str:
    return f"penstock-prompts-{candidate}-{number}"


def _number(obj: Object) -> int:
    return int(obj["metadata"]["name"].rpartition("-")[2])


def _text(obj: Object) -> str:
    """Return a chunk's lines; those of an earlier Penstock are not compressed."""
    packed = obj.get("binaryData", {}).get("lines")
    return _unpacked(packed) if packed else str(obj.get("data", {}).get("lines", ""))
