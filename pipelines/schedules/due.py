"""Which schedules fire now: pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from pipelines.schedules.clock import next_fire
from pipelines.schedules.kept import Kept

LATE_S = 30.0
"""A moment that passed longer ago was missed, by a machine that slept: it is not made up for."""


@dataclass(frozen=True, slots=True)
class Due:
    """When a schedule fires next."""

    version: int
    """Of the schedule that this was computed from."""

    at: float
    """Seconds since the epoch."""


@dataclass(frozen=True, slots=True)
class Look:
    """What to do now."""

    fire: tuple[str, ...]
    missed: tuple[str, ...]
    due: Mapping[str, Due]


def look(known: Sequence[Kept], due: Mapping[str, Due], now: float) -> Look:
    """Return what fires, what was missed, and when everything is due next.

    Args:
        known: The schedules as they are now.
        due: From the look before.
        now: Seconds since the epoch.
    """
    fire: list[str] = []
    missed: list[str] = []
    after: dict[str, Due] = {}
    for kept in known:
        name = kept.schedule.name
        if kept.schedule.paused:
            continue  # when it goes on, it begins anew
        planned = due.get(name)
        if planned is None or planned.version != kept.version:
            last = kept.ticks[-1].at if kept.ticks else None
            planned = Due(kept.version, _next(kept, now, last))
        if now >= planned.at:
            (fire if now - planned.at <= LATE_S else missed).append(name)
            planned = replace(planned, at=_next(kept, now, now))
        after[name] = planned
    return Look(tuple(fire), tuple(missed), after)


def _next(kept: Kept, now: float, last: float | None) -> float:
    moment = datetime.fromtimestamp(now, UTC)
    before = None if last is None else datetime.fromtimestamp(last, UTC)
    return next_fire(kept.schedule.when, moment, last=before).timestamp()
