"""A `Cluster` in memory, for tests that decide rather than serve; it passes the contract suite."""

from __future__ import annotations

import copy
import threading
import time
import uuid
from collections.abc import Iterator, Mapping

from penstock.core.errors import Conflict
from serving.cluster import ANY, Kind, Object, labelled


class MemoryCluster:
    """Objects of one process."""

    def __init__(self) -> None:
        self._objects: dict[tuple[str, str], Object] = {}
        self._gone: list[Object] = []
        self._version = 0
        self._changed = threading.Condition(threading.RLock())

    def get(self, kind: Kind, name: str) -> Object | None:
        with self._changed:
            return copy.deepcopy(self._objects.get((kind, name)))

    def list(self, kind: Kind, *, labels: Mapping[str, str] = ANY) -> list[Object]:
        with self._changed:
            found = [self._objects[key] for key in sorted(self._objects) if key[0] == kind]
            return [copy.deepcopy(obj) for obj in found if labelled(obj, labels)]

    def create(self, obj: Object, *, dry_run: bool = False) -> Object:
        with self._changed:
            if _key(obj) in self._objects:
                raise Conflict(f"{obj['kind']} {obj['metadata']['name']} exists already")
            new = {k: copy.deepcopy(v) for k, v in obj.items() if k != "status"}
            new["metadata"] |= {"uid": str(uuid.uuid4()), "generation": 1}
            return new if dry_run else self._store(new)

    def replace(self, obj: Object, *, dry_run: bool = False) -> Object:
        with self._changed:
            current = self._current(obj)
            new = {k: copy.deepcopy(v) for k, v in obj.items() if k != "status"}
            if "status" in current:
                new["status"] = current["status"]
            changed = new.get("spec") != current.get("spec")
            new["metadata"] |= {
                "uid": current["metadata"]["uid"],
                "generation": current["metadata"]["generation"] + changed,
            }
            return new if dry_run else self._store(new)

    def replace_status(self, obj: Object) -> Object:
        with self._changed:
            return self._store({**self._current(obj), "status": copy.deepcopy(obj["status"])})

    def delete(
        self, kind: Kind, name: str, *, read: Object | None = None, foreground: bool = False
    ) -> None:
        with self._changed:
            if read is not None and (kind, name) in self._objects:
                self._current(read)
            found = self._objects.pop((kind, name), None)
            if found is not None:
                self._version += 1
                version = str(self._version)
                found["metadata"] |= {"deletionTimestamp": "now", "resourceVersion": version}
                self._gone.append(found)
                self._changed.notify_all()

    def watch(self, kind: Kind, *, timeout_s: float) -> Iterator[Object]:
        deadline, seen, first = time.monotonic() + timeout_s, 0, True
        while True:
            with self._changed:
                every = [*self._objects.values(), *([] if first else self._gone)]
                new = [o for o in every if o["kind"] == kind and _version(o) > seen]
                found = copy.deepcopy(sorted(new, key=_version))
                seen, first = self._version, False
                left = deadline - time.monotonic()
                if not found and left > 0:
                    self._changed.wait(left)
            yield from found
            if left <= 0:
                return

    def _current(self, obj: Object) -> Object:
        current = self._objects.get(_key(obj))
        if current is None:
            raise Conflict(f"{obj['metadata']['name']} is gone")
        read_at = obj["metadata"].get("resourceVersion")
        if current["metadata"]["resourceVersion"] != read_at:
            version = _version(current)
            raise Conflict(
                f"{obj['metadata']['name']} is at version {version}, it was read at {read_at}"
            )
        return copy.deepcopy(current)

    def _store(self, obj: Object) -> Object:
        self._version += 1
        obj["metadata"]["resourceVersion"] = str(self._version)
        self._objects[_key(obj)] = obj
        self._changed.notify_all()
        return copy.deepcopy(obj)


def _key(obj: Object) -> tuple[str, str]:
    return obj["kind"], obj["metadata"]["name"]


def _version(obj: Object) -> int:
    return int(obj["metadata"]["resourceVersion"])
