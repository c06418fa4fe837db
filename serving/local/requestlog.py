"""The gateway's request log: the newest requests, for later replay; bounded."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

_SCHEMA = """
CREATE TABLE IF NOT EXISTS requests (
  id INTEGER PRIMARY KEY AUTOINCREMENT, at REAL, name TEXT, service TEXT, path TEXT,
  status INTEGER, e2e_s REAL, body TEXT);
"""


class Entry(NamedTuple):
    """One request that was answered."""

    at: float
    name: str
    service: str
    path: str
    status: int
    e2e_s: float
    body: str


class RequestLog:
    """Keeps the newest `capacity` requests.

    Args:
        path: A SQLite database; made when missing.
        capacity: Rows kept; the oldest go first.
    """

    def __init__(self, path: Path, capacity: int = 10_000) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path, self._capacity = path, capacity
        with closing(sqlite3.connect(path)) as db, db:
            db.execute("PRAGMA journal_mode=WAL")
            db.executescript(_SCHEMA)

    def append(self, entries: Sequence[Entry]) -> None:
        """Write entries and drop what is too old."""
        with closing(sqlite3.connect(self._path, timeout=30)) as db, db:
            db.executemany(
                "INSERT INTO requests (at, name, service, path, status, e2e_s, body) "
                "VALUES (?, ?, ?, ?, ?, ?, ?)",
                entries,
            )
            db.execute(
                "DELETE FROM requests WHERE id <= (SELECT max(id) FROM requests) - ?",
                (self._capacity,),
            )

    def newest(self, count: int) -> list[Entry]:
        """Return the newest entries, the newest first."""
        with closing(sqlite3.connect(self._path, timeout=30)) as db:
            found = db.execute(
                "SELECT at, name, service, path, status, e2e_s, body FROM requests "
                "ORDER BY id DESC LIMIT ?",
                (count,),
            )
            return [Entry(*row) for row in found]

    def after(self, cursor: int, name: str, limit: int) -> tuple[list[Entry], int]:
        """Return the next entries of a model, the oldest first, and the cursor behind them.

        Entries dropped meanwhile are passed over.

        Args:
            cursor: What the last call returned; 0 begins.
            name: The model's.
            limit: Entries at most.
        """
        with closing(sqlite3.connect(self._path, timeout=30)) as db:
            found = db.execute(
                "SELECT id, at, name, service, path, status, e2e_s, body FROM requests "
                "WHERE id > ? AND name = ? ORDER BY id LIMIT ?",
                (cursor, name, limit),
            ).fetchall()
        return [Entry(*row) for _id, *row in found], found[-1][0] if found else cursor
