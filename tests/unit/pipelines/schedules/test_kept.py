from __future__ import annotations

import threading
from pathlib import Path

import pytest

from penstock.core.errors import ConfigurationError, Conflict
from penstock.core.schedules import Schedule, When
from pipelines.schedules.kept import Schedules, Tick


def _schedule(**changes: object) -> Schedule:
    body = {"name": "nightly", "model": "m", "spec": {"name": "m"}, "when": When(every_s=60)}
    return Schedule.model_validate({**body, **changes})


def test_only_what_was_read_is_replaced(tmp_path: Path) -> None:
    store = Schedules(tmp_path / "schedules")
    first = store.put(_schedule(), read=None)
    with pytest.raises(Conflict):
        store.put(_schedule(paused=True), read=None)
    store.put(_schedule(paused=True), read=first)
    with pytest.raises(Conflict):
        store.put(_schedule(), read=first)
    assert store.get("nightly").schedule.paused
    store.delete("nightly")
    store.delete("nightly")
    with pytest.raises(ConfigurationError, match="there are: none"):
        store.get("nightly")


def test_one_of_many_writers_wins(tmp_path: Path) -> None:
    store = Schedules(tmp_path)
    read = store.put(_schedule(), read=None)
    won: list[int] = []

    def write(seconds: int) -> None:
        try:
            store.put(_schedule(deadline_s=seconds), read=read)
        except Conflict:
            return
        won.append(seconds)

    threads = [threading.Thread(target=write, args=(n,)) for n in range(10, 18)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert won == [store.get("nightly").schedule.deadline_s]


def test_ticks_survive_a_change_and_end_once(tmp_path: Path) -> None:
    store = Schedules(tmp_path)
    read = store.put(_schedule(), read=None)
    store.tell("nightly", Tick(at=1.0, because="clock", outcome="running", run_id="r"))
    store.put(_schedule(deadline_s=99), read=read)
    store.tell("nightly", Tick(at=1.0, because="clock", outcome="done", run_id="r"))
    assert [tick.outcome for tick in store.get("nightly").ticks] == ["done"]
    store.tell("gone", Tick(at=1.0, because="clock", outcome="done"))
    assert [kept.schedule.name for kept in store.list()] == ["nightly"]
