"""What a receiver of triggers knows beside the schedules, kept over its restarts."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from components.steps.context import write_atomically
from pipelines.schedules.drift import Watched


class Memory(BaseModel):
    """By the schedule's name."""

    model_config = ConfigDict(extra="forbid", ser_json_inf_nan="strings")

    started: dict[str, float] = {}
    """When a trigger last started it, in seconds since the epoch."""

    watched: dict[str, dict[str, Watched]] = {}
    """Its champion, by metric."""

    cursors: dict[str, tuple[str, str]] = {}
    """The champion's object, and up to where its counters were read."""

    def keep(self, path: Path) -> None:
        """Write it down."""
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, self.model_dump_json())


def recall(path: Path) -> Memory:
    """Return what was written down; nothing if it was not, or cannot be read any more."""
    try:
        return Memory.model_validate_json(path.read_text())
    except (FileNotFoundError, ValueError):
        return Memory()
