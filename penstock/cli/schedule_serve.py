"""The scheduler of this machine: looks at the clock, starts a process per tick, one at a time."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import click

from penstock.cli.edge import settings_of
from penstock.cli.schedule_tick import folder_of, spawn
from penstock.core.errors import ConfigurationError, NotReady
from penstock.core.settings import Settings
from pipelines.schedules.due import Due, look
from pipelines.schedules.kept import Schedules, Tick
from serving.local.processes import hold, holder

LOOK_S = 0.5
_LOCK = "scheduler.lock"
_GRACE_S = 20.0
_START_S = 60.0


def serve(env: dict[str, str]) -> None:
    """Fire schedules until SIGTERM or Ctrl-C; then runs that go on are ended, and can be resumed.

    Args:
        env: Of the ticks.

    Raises:
        ConfigurationError: Another scheduler runs here.
    """
    settings = settings_of(env)
    lock = hold(folder_of(settings) / _LOCK)
    if lock is None:
        raise ConfigurationError(f"a scheduler runs already (process {running(settings)})")
    told = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: told.set())
    clock = _Clock(env, Schedules(folder_of(settings)))
    with lock:
        while not told.is_set():
            clock.look(time.time())
            told.wait(LOOK_S)
        clock.end()


class _Clock:
    """The processes of the ticks."""

    def __init__(self, env: dict[str, str], store: Schedules) -> None:
        self._env, self._store = env, store
        self._due: dict[str, Due] = {}
        self._ticks: dict[str, subprocess.Popen[bytes]] = {}

    def look(self, now: float) -> None:
        """Start what is due, unless its run before goes on."""
        self._ticks = {n: p for n, p in self._ticks.items() if p.poll() is None}
        seen = look(self._store.list(), self._due, now)
        self._due = dict(seen.due)
        for name in seen.missed:
            self._skip(name, now, "missed while this machine slept; it is not made up for")
        for name in seen.fire:
            if name in self._ticks:
                self._skip(name, now, "the run before goes on")
            else:
                self._ticks[name] = spawn(self._env, self._store.folder, name, "clock")

    def end(self) -> None:
        """End the runs that go on."""
        for process in self._ticks.values():
            process.terminate()
        for process in self._ticks.values():
            try:
                process.wait(_GRACE_S)
            except subprocess.TimeoutExpired:
                process.kill()

    def _skip(self, name: str, now: float, why: str) -> None:
        self._store.tell(name, Tick(at=now, because="clock", outcome="skipped", told=why))
        click.echo(f"{name}: skipped: {why}")


def running(settings: Settings) -> int | None:
    """Return the process of the scheduler of this machine; None if there is none."""
    return holder(folder_of(settings) / _LOCK)


def start(env: dict[str, str]) -> bool:
    """Start a scheduler of its own session where none runs; return whether it was started."""
    settings = settings_of(env)
    if running(settings) is not None:
        return False
    path = folder_of(settings) / "logs" / "scheduler.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as log:
        subprocess.run(
            ["setsid", "--fork", sys.executable, "-m", "penstock.cli", "schedule", "serve"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=env,
            check=True,
        )
    _until(settings, path)
    return True


def stop(settings: Settings) -> bool:
    """End the scheduler and the run it is at; return whether there was one."""
    import os

    pid = running(settings)
    if pid is None:
        return False
    os.kill(pid, signal.SIGTERM)
    never, ends_at = threading.Event(), time.monotonic() + 2 * _GRACE_S
    while running(settings) is not None:
        if time.monotonic() > ends_at:
            raise NotReady("scheduler", reason="it does not end", waited_s=2 * _GRACE_S)
        never.wait(0.1)
    return True


def _until(settings: Settings, log: Path) -> None:
    never, ends_at = threading.Event(), time.monotonic() + _START_S
    while running(settings) is None:
        if time.monotonic() > ends_at:
            raise NotReady(
                "scheduler", reason="it ended at once", waited_s=_START_S, hint=f"read {log}"
            )
        never.wait(0.05)
