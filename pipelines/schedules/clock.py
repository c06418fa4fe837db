"""When a schedule fires next: pure. APScheduler's triggers know about summer time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from penstock.core.errors import ConfigurationError
from penstock.core.schedules import Cron, When


def next_fire(when: When, after: datetime, *, last: datetime | None = None) -> datetime:
    """Return the first moment after `after` at which it fires.

    What was missed stays missed: an interval begins anew when it was.

    Args:
        when: The clock.
        after: Aware.
        last: When it fired last, for an interval.
    """
    if when.every_s is not None:
        due = (last or after) + timedelta(seconds=when.every_s)
        return max(due, after)
    found = _trigger(when).get_next_fire_time(None, after + timedelta(microseconds=1))
    if found is None:
        raise ConfigurationError(
            f"--cron: {when.cron} never comes", hint="such as 0 3 * * *: every night at three"
        )
    moment: datetime = found
    return moment.astimezone(UTC)


def _trigger(when: When) -> Any:
    from apscheduler.triggers.cron import CronTrigger

    minute, hour, day, month, weekday = Cron.parse(when.cron or "").fields
    return CronTrigger(
        minute=minute,
        hour=hour,
        day=day,
        month=month,
        day_of_week=weekday,
        second=0,
        timezone=ZoneInfo(when.zone),
    )
