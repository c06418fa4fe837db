"""The time that a run may take, over all of its tasks: what begins or goes on after it is ended."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from penstock.core.errors import DeadlinePassed
from penstock.core.settings import Settings

_FILE = "ends_at"


def begin(settings: Settings, deadline_s: float) -> None:
    """Write down when this run has to end; the first task does, and a retry of it changes nothing.

    Args:
        settings: Whose run.
        deadline_s: Seconds from now; 0: there is no deadline.
    """
    path = settings.run_dir / _FILE
    if deadline_s > 0 and not path.exists():
        scratch = path.with_name(f".{_FILE}.{os.getpid()}")
        scratch.write_text(json.dumps([time.time() + deadline_s, deadline_s]))
        scratch.replace(path)  # a task that is killed leaves none or a whole one


def end(settings: Settings) -> None:
    """Forget it: the run is over, and what follows takes the time that it takes."""
    (settings.run_dir / _FILE).unlink(missing_ok=True)


@contextmanager
def within(settings: Settings) -> Iterator[None]:
    """Raise `DeadlinePassed` in a step's work when the run's time is over.

    By a signal, so it reaches work that waits; a step is the main thread of its process.
    """
    path = settings.run_dir / _FILE
    if not path.exists() or threading.current_thread() is not threading.main_thread():
        yield
        return
    ends_at, deadline_s = json.loads(path.read_text())

    def late(_number: int, _frame: object) -> None:
        raise DeadlinePassed(
            f"ended: the run took longer than its deadline, {deadline_s:g} s",
            hint="the next run goes on where this one was; --deadline of the schedule is the limit",
        )

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, max(0.001, ends_at - time.time()))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
