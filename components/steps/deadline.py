"""The time that a run may take, and what `tasks` of the spec allows each of its tasks.

What begins or goes on after its time is ended; what was tried often enough is not tried again. KFP
takes both when a pipeline is compiled, before there is a spec, so the tasks see to it themselves.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from operator import itemgetter
from pathlib import Path
from typing import Any

from penstock.core.errors import DeadlinePassed, TriedEnough
from penstock.core.settings import Settings
from penstock.core.tasks import Task, TaskLimits

_ENDS_AT, _LIMITS, _TRIES = "ends_at", "limits", ".tries"


def begin(settings: Settings, deadline_s: float, tasks: Mapping[Task, TaskLimits]) -> None:
    """Write down what this run may take; the first task does, and a retry of it changes nothing.

    Args:
        settings: Whose run.
        deadline_s: Seconds from now until it has to end; 0: there is no deadline.
        tasks: Of the spec.
    """
    if deadline_s > 0:
        _write_once(settings.run_dir / _ENDS_AT, [time.time() + deadline_s, deadline_s])
    if tasks:
        limits = {name: each.model_dump(mode="json") for name, each in tasks.items()}
        _write_once(settings.run_dir / _LIMITS, limits)


def end(settings: Settings) -> None:
    """Forget it: the run is over, and what follows takes the time and the tries that it takes."""
    tries = (settings.run_dir / "steps").glob(f"*{_TRIES}")
    for path in (settings.run_dir / _ENDS_AT, settings.run_dir / _LIMITS, *tries):
        path.unlink(missing_ok=True)


def count(settings: Settings, task: str) -> None:
    """Count a try of a task.

    Raises:
        TriedEnough: There was one too many before; what went wrong then stands in the record.
    """
    retries = _limits(settings, task).get("retries")
    if retries is None:
        return
    path = settings.run_dir / "steps" / f"{task}{_TRIES}"
    before = int(path.read_text()) if path.exists() else 0
    if before > retries:
        raise TriedEnough(
            f"{task} was tried {before} time{'s' if before > 1 else ''}; "
            f"tasks.{task}.retries is {retries}",
            hint="its record says what went wrong; penstock runs retry knows no such limit",
        )
    _write(path, before + 1)


@contextmanager
def within(settings: Settings, task: str) -> Iterator[None]:
    """Raise `DeadlinePassed` in a step's work when its time or the run's is over.

    By a signal, so it reaches work that waits; a step is the main thread of its process.
    """
    ends = [*_ends(settings, task)]
    if not ends or threading.current_thread() is not threading.main_thread():
        yield
        return
    ends_at, problem = min(ends, key=itemgetter(0))

    def late(_number: int, _frame: object) -> None:
        raise problem

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, max(0.001, ends_at - time.time()))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _ends(settings: Settings, task: str) -> Iterator[tuple[float, DeadlinePassed]]:
    path = settings.run_dir / _ENDS_AT
    if path.exists():
        ends_at, deadline_s = json.loads(path.read_text())
        yield (
            ends_at,
            DeadlinePassed(
                f"ended: the run took longer than its deadline, {deadline_s:g} s",
                hint="the next run goes on where this one was; --deadline of the schedule is the "
                "limit",
            ),
        )
    timeout_s = _limits(settings, task).get("timeout_s")
    if timeout_s is not None:
        yield (
            time.time() + timeout_s,
            DeadlinePassed(
                f"ended: it took longer than tasks.{task}.timeout_s, {timeout_s:g} s",
                hint="another try or run goes on where this one was, if it may take longer",
            ),
        )


def _limits(settings: Settings, task: str) -> dict[str, Any]:
    path = settings.run_dir / _LIMITS
    limits = json.loads(path.read_text()) if path.exists() else {}
    return dict(limits.get(task, {}))


def _write_once(path: Path, body: Any) -> None:
    if not path.exists():
        _write(path, body)


def _write(path: Path, body: Any) -> None:
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    scratch.write_text(json.dumps(body))
    scratch.replace(path)  # a task that is killed leaves none or a whole one
