"""A `Cluster` that is a folder of manifests, to be committed.

Between machines, Git's push is the compare-and-swap.

```
DIR/kustomization.yaml               lists the manifests
DIR/inferenceservice-chat-v2.yaml    a version
DIR/httproute-chat.yaml              its weights
DIR/rollouts/chat.json               the rollout's record: committed, not applied
```

What a server would add (uid, versions, status) is kept in memory: it would be another in every
clone. So are Leases: they keep processes apart, and a checkout is used by one at a time.
"""

from __future__ import annotations

import copy
import fcntl
import os
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from penstock.core.errors import ConfigurationError, Conflict
from serving.cluster import ANY, Kind, Object, labelled
from serving.gitops import manifest

_POLL_S = 0.05
_NO_FILE = ("Lease",)
_CARRIERS = ("HTTPRoute", "VirtualService")
"""Kinds of what carries weights, and so a rollout's record; a name has one of them."""

_VERSIONS = ("InferenceService", "LLMInferenceService")
_GO_WITH_VERSIONS = ("PodDisruptionBudget",)
"""Kinds of what a server removes with the version of the same name, which owns it."""

_Key = tuple[str, str]


@dataclass
class _Known:
    """An object as it was last seen, and its file's text."""

    obj: Object
    text: str


class FolderCluster:
    """Objects of one folder. Files that are changed by others are seen at the next call.

    Args:
        folder: Where the manifests are; made when missing.
        namespace: Written into objects that name none.

    Raises:
        ConfigurationError: The folder has a `kustomization.yaml` that is not ours.
    """

    def __init__(self, folder: Path, namespace: str = "") -> None:
        self.folder, self._namespace = folder, namespace
        folder.mkdir(parents=True, exist_ok=True)
        listed = folder / manifest.KUSTOMIZATION
        if listed.exists() and not manifest.ours(listed.read_text()):
            raise ConfigurationError(
                f"{listed} is not Penstock's, and would be overwritten",
                hint="give --render a folder of its own, and name that folder in your "
                "kustomization.yaml",
            )
        self._objects: dict[_Key, _Known] = {}
        self._gone: list[Object] = []
        self._version = 0
        self._lock = threading.RLock()

    def get(self, kind: Kind, name: str) -> Object | None:
        """Return the object, or None if there is none."""
        with self._seen():
            known = self._objects.get((kind, name))
            return None if known is None else copy.deepcopy(known.obj)

    def list(self, kind: Kind, *, labels: Mapping[str, str] = ANY) -> list[Object]:
        """Return all objects of a kind, by name: those that have all these labels."""
        with self._seen():
            found = [self._objects[key].obj for key in sorted(self._objects) if key[0] == kind]
            return [copy.deepcopy(obj) for obj in found if labelled(obj, labels)]

    def create(self, obj: Object, *, dry_run: bool = False) -> Object:
        """Write a new file; `Conflict` if the name is taken. See `Cluster.create`."""
        with self._seen():
            kind, name = _key(obj)
            if (kind, name) in self._objects:
                raise Conflict(f"{kind} {name} exists already", hint="read it, then replace it")
            new = {key: copy.deepcopy(value) for key, value in obj.items() if key != "status"}
            if self._namespace:
                new["metadata"].setdefault("namespace", self._namespace)
            new["metadata"] |= {"uid": str(uuid.uuid4()), "generation": 1}
            return new if dry_run else self._store(new)

    def replace(self, obj: Object, *, dry_run: bool = False) -> Object:
        """Write the file over the version it was read at. See `Cluster.replace`."""
        with self._seen():
            current = self._current(obj)
            new = {key: copy.deepcopy(value) for key, value in obj.items() if key != "status"}
            if "status" in current:
                new["status"] = current["status"]
            new["metadata"] |= _bookkeeping(current, new)
            return new if dry_run else self._store(new)

    def replace_status(self, obj: Object) -> Object:
        """Like `replace`, but only `status` is written; it has no file."""
        with self._seen():
            current = self._current(obj)
            return self._store({**current, "status": copy.deepcopy(obj.get("status", {}))})

    def delete(
        self,
        kind: Kind,
        name: str,
        *,
        read: Object | None = None,
        foreground: bool = False,  # noqa: ARG002 -- all is gone at once
    ) -> None:
        """Remove the file, and what goes with it; what is not there does no harm.

        See `Cluster.delete`.
        """
        with self._seen():
            if (kind, name) not in self._objects:
                return
            if read is not None:
                self._current(read)
            if kind in _CARRIERS:
                self._record(name).unlink(missing_ok=True)
            owned = [(kind_, name) for kind_ in _GO_WITH_VERSIONS if kind in _VERSIONS]
            for key in [(kind, name), *(key for key in owned if key in self._objects)]:
                (self.folder / manifest.file_of(*key)).unlink(missing_ok=True)
                self._forget(key)
            self._list_files()

    def watch(self, kind: Kind, *, timeout_s: float) -> Iterator[Object]:
        """Yield every current object, then each change until `timeout_s` has passed."""
        deadline, seen, never = time.monotonic() + timeout_s, 0, threading.Event()
        first = True
        while True:
            with self._seen():
                there = [known.obj for known in self._objects.values()]
                every = [*there, *([] if first else self._gone)]
                new = [o for o in every if o["kind"] == kind and _version(o) > seen]
                found = copy.deepcopy(sorted(new, key=_version))
                seen, first = self._version, False
            yield from found
            if time.monotonic() >= deadline:
                return
            never.wait(_POLL_S)

    @contextmanager
    def _seen(self) -> Iterator[None]:
        """Keep other threads and processes out, with everything as the files have it now."""
        with self._lock:
            directory = os.open(self.folder, os.O_RDONLY)
            try:
                fcntl.flock(directory, fcntl.LOCK_EX)
                self._read_files()
                yield
            finally:
                os.close(directory)

    def _read_files(self) -> None:
        """Take up what others wrote: people, and `git checkout`."""
        found = {}
        for path in self._files():
            text = path.read_text()
            obj = manifest.from_text(text, str(path))
            record = self._record(obj["metadata"]["name"])
            if obj["kind"] in _CARRIERS and record.exists():
                obj = manifest.with_record(obj, record.read_text())
            found[_key(obj)] = _Known(obj, text)
        for key in [key for key in self._objects if key[0] not in _NO_FILE and key not in found]:
            self._forget(key)
        for key, new in found.items():
            old = self._objects.get(key)
            if old is None:
                new.obj["metadata"] |= {"uid": str(uuid.uuid4()), "generation": 1}
                self._keep(new.obj, new.text)
            elif old.text != new.text or _annotations(old.obj) != _annotations(new.obj):
                new.obj["metadata"] |= _bookkeeping(old.obj, new.obj)
                if "status" in old.obj:
                    new.obj["status"] = old.obj["status"]
                self._keep(new.obj, new.text)

    def _files(self) -> Iterator[Path]:
        every = sorted(self.folder.glob("*.yaml"))
        return (path for path in every if path.name != manifest.KUSTOMIZATION)

    def _current(self, obj: Object) -> Object:
        kind, name = _key(obj)
        known, read_at = self._objects.get((kind, name)), obj["metadata"].get("resourceVersion")
        if known is None:
            raise Conflict(f"{kind} {name} is gone; it was read at version {read_at}")
        now = known.obj["metadata"]["resourceVersion"]
        if read_at != now:
            raise Conflict(
                f"{kind} {name} is at version {now}, it was read at {read_at}",
                hint="read it again, decide again",
            )
        return copy.deepcopy(known.obj)

    def _store(self, obj: Object) -> Object:
        kind, name = _key(obj)
        if kind in _NO_FILE:
            return self._keep(obj, "")
        text, record = manifest.to_text(obj), manifest.record_text(obj)
        _write(self.folder / manifest.file_of(kind, name), text)
        if kind in _CARRIERS and record:
            _write(self._record(name), record)
        self._list_files()
        return self._keep(obj, text)

    def _keep(self, obj: Object, text: str) -> Object:
        self._version += 1
        obj["metadata"]["resourceVersion"] = str(self._version)
        self._objects[_key(obj)] = _Known(obj, text)
        return copy.deepcopy(obj)

    def _forget(self, key: _Key) -> None:
        self._version += 1
        obj = self._objects.pop(key).obj
        obj["metadata"] |= {"deletionTimestamp": "now", "resourceVersion": str(self._version)}
        self._gone.append(obj)

    def _list_files(self) -> None:
        text = manifest.kustomization(path.name for path in self._files())
        _write(self.folder / manifest.KUSTOMIZATION, text)

    def _record(self, name: str) -> Path:
        return self.folder / "rollouts" / f"{name}.json"


def _bookkeeping(before: Object, after: Object) -> Object:
    """Return what a server would write of an object's identity."""
    changed = after.get("spec") != before.get("spec")
    kept = before["metadata"]
    return {"uid": kept["uid"], "generation": kept["generation"] + int(changed)}


def _annotations(obj: Object) -> Object:
    found: Object = obj["metadata"].get("annotations", {})
    return found


def _write(path: Path, text: str) -> None:
    """Write a file so that nobody reads half of it; one that has the text is left alone."""
    if path.exists() and path.read_text() == text:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    scratch.write_text(text)
    scratch.replace(path)


def _key(obj: Object) -> _Key:
    return obj["kind"], obj["metadata"]["name"]


def _version(obj: Object) -> int:
    return int(obj["metadata"]["resourceVersion"])
