"""The laptop's `Cluster`: objects in SQLite, every write a compare-and-swap."""

from __future__ import annotations

import copy
import json
import sqlite3
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path

from penstock.core.errors import Conflict
from serving.cluster import ANY, Kind, Object, labelled

_POLL_S = 0.05
_SCHEMA = """
CREATE TABLE IF NOT EXISTS objects (
  kind TEXT, name TEXT, version INTEGER, deleted INTEGER, body TEXT, PRIMARY KEY (kind, name));
CREATE TABLE IF NOT EXISTS counter (one INTEGER PRIMARY KEY CHECK (one = 1), version INTEGER);
INSERT OR IGNORE INTO counter VALUES (1, 0);
"""


class SqliteCluster:
    """Objects that several processes read and write.

    Args:
        path: The database file; made when missing.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        with self._open() as db:
            db.execute("PRAGMA journal_mode=WAL")
            db.executescript(_SCHEMA)

    def get(self, kind: Kind, name: str) -> Object | None:
        """Return the object, or None if there is none."""
        with self._open() as db:
            return self._read(db, kind, name)

    def list(self, kind: Kind, *, labels: Mapping[str, str] = ANY) -> list[Object]:
        """Return all objects of a kind, by name: those that have all these labels."""
        with self._open() as db:
            found = db.execute(
                "SELECT body FROM objects WHERE kind = ? AND NOT deleted ORDER BY name", (kind,)
            )
            read = (json.loads(body) for (body,) in found)
            return [obj for obj in read if labelled(obj, labels)]

    def version(self) -> int:
        """Return the newest resource version: another one means something changed."""
        with self._open() as db:
            return int(db.execute("SELECT version FROM counter").fetchone()[0])

    def create(self, obj: Object, *, dry_run: bool = False) -> Object:
        """Store a new object; `Conflict` if the name is taken."""
        kind, name = obj["kind"], obj["metadata"]["name"]
        with self._write() as db:
            if self._read(db, kind, name) is not None:
                raise Conflict(f"{kind} {name} exists already", hint="read it, then replace it")
            new = copy.deepcopy(obj)
            new.pop("status", None)
            new["metadata"] |= {
                "uid": str(uuid.uuid4()),
                "generation": 1,
                "creationTimestamp": _now(),
            }
            return new if dry_run else self._store(db, new)

    def replace(self, obj: Object, *, dry_run: bool = False) -> Object:
        """Store `obj` over the version it was read at; its status is ignored."""
        with self._write() as db:
            current = self._current(db, obj)
            new = copy.deepcopy(obj)
            new.pop("status", None)
            if "status" in current:
                new["status"] = current["status"]
            for fixed in ("uid", "creationTimestamp"):
                new["metadata"][fixed] = current["metadata"][fixed]
            changed = new.get("spec") != current.get("spec")
            new["metadata"]["generation"] = current["metadata"]["generation"] + int(changed)
            return new if dry_run else self._store(db, new)

    def replace_status(self, obj: Object) -> Object:
        """Like `replace`, but only `status` is written."""
        with self._write() as db:
            current = self._current(db, obj)
            current["status"] = copy.deepcopy(obj.get("status", {}))
            return self._store(db, current)

    def delete(
        self,
        kind: Kind,
        name: str,
        *,
        read: Object | None = None,
        foreground: bool = False,  # noqa: ARG002 -- nothing here owns anything
    ) -> None:
        """Remove the object; removing what is not there does nothing. See `Cluster.delete`."""
        with self._write() as db:
            current = self._read(db, kind, name)
            if current is not None:
                if read is not None:
                    self._current(db, read)
                current["metadata"]["deletionTimestamp"] = _now()
                self._store(db, current, deleted=True)

    def watch(self, kind: Kind, *, timeout_s: float) -> Iterator[Object]:
        """Yield every current object, then each change until `timeout_s` has passed."""
        deadline, seen, never = time.monotonic() + timeout_s, 0, threading.Event()
        first = True
        while True:
            with self._open() as db:
                found = db.execute(
                    "SELECT version, deleted, body FROM objects WHERE kind = ? AND version > ? "
                    "ORDER BY version",
                    (kind, seen),
                ).fetchall()
            for version, deleted, body in found:
                seen = version
                if not (first and deleted):
                    yield json.loads(body)
            first = False
            if time.monotonic() >= deadline:
                return
            never.wait(_POLL_S)

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        # one short connection per operation: safe across threads, forks and processes
        with closing(sqlite3.connect(self._path, timeout=30, isolation_level=None)) as db:
            yield db

    @contextmanager
    def _write(self) -> Iterator[sqlite3.Connection]:
        with self._open() as db:
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
            except BaseException:
                db.execute("ROLLBACK")
                raise
            db.execute("COMMIT")

    def _read(self, db: sqlite3.Connection, kind: str, name: str) -> Object | None:
        found = db.execute(
            "SELECT body FROM objects WHERE kind = ? AND name = ? AND NOT deleted", (kind, name)
        ).fetchone()
        return None if found is None else json.loads(found[0])

    def _current(self, db: sqlite3.Connection, obj: Object) -> Object:
        kind, name = obj["kind"], obj["metadata"]["name"]
        read_at = obj["metadata"].get("resourceVersion")
        current = self._read(db, kind, name)
        if current is None:
            raise Conflict(f"{kind} {name} is gone; it was read at version {read_at}")
        now = current["metadata"]["resourceVersion"]
        if read_at != now:
            raise Conflict(
                f"{kind} {name} is at version {now}, it was read at {read_at}",
                hint="read it again, decide again",
            )
        return current

    def _store(self, db: sqlite3.Connection, obj: Object, *, deleted: bool = False) -> Object:
        db.execute("UPDATE counter SET version = version + 1")
        version = int(db.execute("SELECT version FROM counter").fetchone()[0])
        obj["metadata"]["resourceVersion"] = str(version)
        db.execute(
            "INSERT OR REPLACE INTO objects VALUES (?, ?, ?, ?, ?)",
            (obj["kind"], obj["metadata"]["name"], version, deleted, json.dumps(obj)),
        )
        return obj


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
