"""The clock of this machine's scheduler: fires once, makes nothing up, keeps to its zone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from penstock.core.errors import ConfigurationError
from penstock.core.schedules import Schedule, When
from pipelines.schedules.clock import next_fire
from pipelines.schedules.due import LATE_S, Due, look
from pipelines.schedules.kept import Kept, Tick


def _kept(*, version: int = 1, ticks: tuple[Tick, ...] = (), **changes: Any) -> Kept:
    body = {"name": "n", "model": "m", "spec": {}, "when": {"every_s": 60}, **changes}
    return Kept(Schedule.model_validate(body), version, ticks)


def _run(kept: Kept, moments: list[float]) -> list[float]:
    due: dict[str, Due] = {}
    fired = []
    for now in moments:
        seen = look([kept], due, now)
        due = dict(seen.due)
        fired += [now] * len(seen.fire)
    return fired


def test_an_interval_fires_once_each() -> None:
    assert _run(_kept(), [float(t) for t in range(200)]) == [60.0, 120.0, 180.0]


def test_what_was_slept_through_is_not_made_up_for() -> None:
    due: dict[str, Due] = {}
    seen = look([_kept()], due, 0.0)
    woken = look([_kept()], seen.due, 60 + LATE_S + 1000)
    assert (woken.fire, woken.missed) == ((), ("n",))
    again = look([_kept()], woken.due, 60 + LATE_S + 1001)
    assert (again.fire, again.missed) == ((), ())
    assert woken.due["n"].at == 60 + LATE_S + 1060


def test_a_scheduler_that_was_killed_goes_on_where_it_was() -> None:
    tick = Tick(at=1000.0, because="clock", outcome="done")
    assert look([_kept(ticks=(tick,))], {}, 1030.0).due["n"].at == 1060.0
    assert look([_kept(ticks=(tick,))], {}, 9999.0).fire == ("n",)


def test_a_change_or_a_pause_begins_anew() -> None:
    first = look([_kept()], {}, 0.0)
    slower = _kept(version=2, when={"every_s": 600})
    assert look([slower], first.due, 59.0).due["n"].at == 659.0
    paused = look([_kept(version=3, paused=True)], first.due, 61.0)
    assert (paused.fire, dict(paused.due)) == ((), {})


@pytest.mark.parametrize(
    ("cron", "after", "fires"),
    [
        # clocks go back in Berlin on 2026-10-25 at 03:00, forward on 2026-03-29 at 02:00
        ("30 2 * * *", "2026-10-24T12:00", "2026-10-25T00:30"),
        ("30 3 * * *", "2026-10-24T12:00", "2026-10-25T02:30"),
        ("30 3 * * *", "2026-03-28T12:00", "2026-03-29T01:30"),
        ("0 9 * * 1", "2026-11-28T00:00", "2026-11-30T08:00"),
        ("0 9 * * 0", "2026-11-28T00:00", "2026-11-29T08:00"),
    ],
)
def test_a_zone_has_summer_time(cron: str, after: str, fires: str) -> None:
    moment = datetime.fromisoformat(after).replace(tzinfo=UTC)
    found = next_fire(When(cron=cron, zone="Europe/Berlin"), moment)
    assert found == datetime.fromisoformat(fires).replace(tzinfo=UTC)


def test_the_next_is_always_later() -> None:
    moment = datetime(2026, 10, 24, 22, tzinfo=UTC)
    for _ in range(200):
        found = next_fire(When(cron="*/7 * * * *", zone="Europe/Berlin"), moment)
        assert timedelta(0) < found - moment <= timedelta(minutes=7)
        moment = found


def test_a_day_that_never_comes() -> None:
    with pytest.raises(ConfigurationError, match="never comes"):
        next_fire(When(cron="0 0 30 2 *"), datetime(2026, 1, 1, tzinfo=UTC))
