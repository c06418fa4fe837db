"""Time, which tests move; and schedules in it, as the controller's library reads them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.fakes.kfp.failure import invalid

_RANGES = ((0, 59), (0, 59), (0, 23), (1, 31), (1, 12), (0, 6))
_NAMES: tuple[dict[str, int], ...] = (
    {},
    {},
    {},
    {},
    {m: i + 1 for i, m in enumerate("jan feb mar apr may jun jul aug sep oct nov dec".split())},
    {d: i for i, d in enumerate("sun mon tue wed thu fri sat".split())},
)
_MACROS = {
    "@yearly": "0 0 0 1 1 *",
    "@monthly": "0 0 0 1 * *",
    "@weekly": "0 0 0 * * 0",
    "@daily": "0 0 0 * * *",
    "@hourly": "0 0 * * * *",
}
NEVER = datetime.max.replace(tzinfo=UTC)


class Clock:
    """The server's time: the real one, and what was added to it."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def now(self) -> datetime:
        """Return the time, in whole seconds as the database keeps it."""
        return datetime.fromtimestamp(int(time.time() + self.ahead_s), UTC)


def shown(moment: datetime | None) -> str:
    """Return a time as the API writes it; the epoch for none."""
    return (moment or datetime.fromtimestamp(0, UTC)).strftime("%Y-%m-%dT%H:%M:%SZ")


def read(text: object) -> datetime | None:
    return datetime.fromisoformat(str(text)) if text else None


class Cron:
    """Six fields, seconds first; five are taken, with second 0; in UTC."""

    def __init__(self, text: str) -> None:
        fields = _MACROS.get(text, text).split()
        if text.startswith("@") and text not in _MACROS:
            raise _unknown(f"Unrecognized descriptor: {text}")
        if len(fields) not in (5, 6):
            raise _unknown(f"Expected 5 to 6 fields, found {len(fields)}: {text}")
        fields = ["0", *fields] if len(fields) == 5 else fields
        self._allowed = [
            _parse(field, low, high, names)
            for field, (low, high), names in zip(fields, _RANGES, _NAMES, strict=True)
        ]
        self._any_day = [field in ("*", "?") for field in (fields[3], fields[5])]

    def after(self, moment: datetime) -> datetime:
        """Return the next time that it fires, strictly after a moment."""
        found = moment.replace(microsecond=0) + timedelta(seconds=1)
        second, minute, hour, _, month, _ = self._allowed
        end = found + timedelta(days=366 * 5)
        while found < end:
            if found.month not in month or not self._day(found):
                found = found.replace(hour=0, minute=0, second=0) + timedelta(days=1)
            elif found.hour not in hour:
                found = found.replace(minute=0, second=0) + timedelta(hours=1)
            elif found.minute not in minute:
                found = found.replace(second=0) + timedelta(minutes=1)
            elif found.second not in second:
                found += timedelta(seconds=1)
            else:
                return found
        return NEVER

    def _day(self, moment: datetime) -> bool:
        of_month = moment.day in self._allowed[3]
        of_week = (moment.weekday() + 1) % 7 in self._allowed[5]
        return of_month and of_week if any(self._any_day) else of_month or of_week


def _parse(field: str, low: int, high: int, names: Mapping[str, int]) -> set[int]:
    found: set[int] = set()
    for part in field.split(","):
        span, _, step = part.partition("/")
        if span in ("*", "?"):
            first, last = low, high
        else:
            ends = [_number(end, names) for end in span.split("-")]
            first, last = ends[0], ends[-1] if len(ends) > 1 or not step else high
        if not low <= first <= last <= high:
            raise _unknown(f"{field}: outside of {low} to {high}")
        found |= set(range(first, last + 1, _number(step or "1", {}) or 1))
    return found


def _number(text: str, names: Mapping[str, int]) -> int:
    if text.lower() in names:
        return names[text.lower()]
    if not text.isdigit():
        raise _unknown(f"Failed to parse int from {text}")
    return int(text)


def _unknown(said: str) -> Exception:
    return invalid(
        "Schedule cron is not a supported format(https://godoc.org/github.com/robfig/cron). "
        f"Error: {said}"
    )


def next_fire(
    trigger: Mapping[str, Any], last: datetime, now: datetime, *, catch_up: bool
) -> datetime:
    """Return when a schedule fires next; without catching up, the last of those that were missed.

    Args:
        trigger: As the API has it.
        last: When it fired last, or was created.
        now: The time.
        catch_up: Whether missed ones are made up for, one by one.
    """
    body = trigger.get("cron_schedule") or trigger.get("periodic_schedule") or {}
    start, end = read(body.get("start_time")), read(body.get("end_time")) or NEVER
    moment = max(last, start) if start else last
    step = Cron(body["cron"]).after if "cron_schedule" in trigger else _every(body)
    found = step(moment)
    while not catch_up and (following := step(found)) <= min(now, end):
        found = following
    return found if found <= end else NEVER


def _every(body: Mapping[str, Any]) -> Callable[[datetime], datetime]:
    interval = timedelta(seconds=int(body["interval_second"]))
    return lambda then: then + interval
