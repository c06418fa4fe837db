"""Processes that outlive whoever started them: known by pid and start time, held by a lock."""

from __future__ import annotations

import fcntl
import os
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

from serving.local.reconcile import Crashes

_SCHEMA = """
CREATE TABLE IF NOT EXISTS replicas (
  identity TEXT PRIMARY KEY, service TEXT, pid INTEGER, born INTEGER, started_at REAL,
  draining_since REAL);
CREATE TABLE IF NOT EXISTS crashes (service TEXT PRIMARY KEY, count INTEGER, last_at REAL);
"""


def born(pid: int) -> int | None:
    """Return a process's start time in clock ticks since boot; None if it does not run.

    With the pid it names a process for good: pids are used again. Source: proc(5), field 22.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else int(fields[19])


@dataclass(frozen=True, slots=True)
class Process:
    """A replica's process."""

    identity: str
    service: str
    pid: int
    born: int
    started_at: float
    draining_since: float | None = None

    @property
    def alive(self) -> bool:
        """Whether this very process still runs."""
        return born(self.pid) == self.born

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, unless the process ended meanwhile."""
        if self.alive:
            try:
                os.kill(self.pid, number)
            except ProcessLookupError:
                return


class Replicas:
    """The record of replica processes; survives the supervisor.

    Args:
        path: A SQLite database; made when missing.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        with self._open() as db:
            db.execute("PRAGMA journal_mode=WAL")
            db.executescript(_SCHEMA)

    def all(self) -> list[Process]:
        """Return every recorded process, the oldest first."""
        with self._open() as db:
            found = db.execute(
                "SELECT identity, service, pid, born, started_at, draining_since FROM replicas "
                "ORDER BY started_at"
            )
            return [Process(*row) for row in found]

    def put(self, process: Process) -> None:
        """Record a process, or replace its record."""
        with self._open() as db:
            db.execute(
                "INSERT OR REPLACE INTO replicas VALUES (?, ?, ?, ?, ?, ?)",
                (
                    process.identity,
                    process.service,
                    process.pid,
                    process.born,
                    process.started_at,
                    process.draining_since,
                ),
            )

    def drain(self, process: Process, now: float) -> None:
        """Tell a replica to finish and end; the record says since when."""
        self.put(replace(process, draining_since=now))
        process.signal(signal.SIGTERM)

    def forget(self, identity: str) -> None:
        """Remove a record."""
        with self._open() as db:
            db.execute("DELETE FROM replicas WHERE identity = ?", (identity,))

    def crashes(self) -> dict[str, Crashes]:
        """Return the crashes in a row, per service."""
        with self._open() as db:
            found = db.execute("SELECT service, count, last_at FROM crashes")
            return {service: Crashes(count, last_at) for service, count, last_at in found}

    def record_crashes(self, service: str, crashes: Crashes | None) -> None:
        """Write a service's crashes; None forgets them."""
        with self._open() as db:
            if crashes is None:
                db.execute("DELETE FROM crashes WHERE service = ?", (service,))
            else:
                db.execute(
                    "INSERT OR REPLACE INTO crashes VALUES (?, ?, ?)",
                    (service, crashes.count, crashes.last_at),
                )

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(self._path, timeout=30, isolation_level=None)) as db:
            yield db


def hold(path: Path) -> IO[str] | None:
    """Return the locked file with this process's pid in it, or None if another holds it.

    The lock ends with the process, however it ends.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    return file


def holder(path: Path) -> int | None:
    """Return the pid of the process that holds a lock; None if nobody does."""
    if not path.exists():
        return None
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            text = file.read().strip()
            return int(text) if text else None
    return None
