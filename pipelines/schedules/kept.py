"""The schedules of this machine: a JSON file each, every write a compare-and-swap."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from components.steps.context import write_atomically
from penstock.core.errors import ConfigurationError, Conflict
from penstock.core.schedules import Schedule
from registry.store import locked

_TICKS = 100
"""Ticks that are kept per schedule."""


class Tick(BaseModel):
    """One time that a schedule fired. Times are seconds since the epoch."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    at: float
    because: str
    outcome: Literal["running", "done", "failed", "skipped", "deadline", "interrupted"]
    told: str = ""
    run_id: str = ""
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Kept:
    """A schedule as it was read."""

    schedule: Schedule
    version: int
    """It may be replaced only while it is the one that was read."""

    ticks: tuple[Tick, ...] = ()
    """The oldest first."""


class Schedules:
    """The schedules below a folder.

    Args:
        folder: `HOME/schedules`; made when something is written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def list(self) -> list[Kept]:
        """Return every schedule, by name."""
        return [found for path in sorted(self.folder.glob("*.json")) if (found := _read(path))]

    def get(self, name: str) -> Kept:
        """Return one; `ConfigurationError` names those that there are."""
        found = self.find(name)
        if found is None:
            known = ", ".join(each.schedule.name for each in self.list()) or "none"
            raise ConfigurationError(
                f"no schedule {name!r} on this machine; there are: {known}",
                hint="penstock schedule list --local",
            )
        return found

    def find(self, name: str) -> Kept | None:
        """Return one, or None."""
        return _read(self._path(name))

    def put(self, schedule: Schedule, *, read: Kept | None) -> Kept:
        """Write a schedule over the one that was read; its ticks stay.

        Raises:
            Conflict: It is not the one that was read any more.
        """
        with locked(self.folder / ".lock"):
            current = self.find(schedule.name)
            seen = read.version if read is not None else None
            there = current.version if current is not None else None
            if seen != there:
                raise Conflict(
                    f"schedule {schedule.name} changed meanwhile", hint="show it, then try again"
                )
            ticks = current.ticks if current is not None else ()
            return self._write(Kept(schedule, (there or 0) + 1, ticks))

    def tell(self, name: str, tick: Tick) -> None:
        """Write a tick down, or how it ended; a schedule that is gone has none."""
        with locked(self.folder / ".lock"):
            current = self.find(name)
            if current is None:
                return
            others = tuple(t for t in current.ticks if t.at != tick.at)
            ticks = tuple(sorted((*others, tick), key=lambda t: t.at))[-_TICKS:]
            self._write(Kept(current.schedule, current.version, ticks))

    def delete(self, name: str) -> None:
        """Remove a schedule; one that is gone is fine."""
        with locked(self.folder / ".lock"):
            self._path(name).unlink(missing_ok=True)

    def _write(self, kept: Kept) -> Kept:
        body = {
            "version": kept.version,
            "schedule": kept.schedule.model_dump(mode="json"),
            "ticks": [tick.model_dump() for tick in kept.ticks],
        }
        write_atomically(self._path(kept.schedule.name), json.dumps(body, indent=1) + "\n")
        return kept

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.json"


def _read(path: Path) -> Kept | None:
    try:
        body: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    return Kept(
        Schedule.model_validate(body["schedule"]),
        int(body["version"]),
        tuple(Tick.model_validate(each) for each in body["ticks"]),
    )
