"""One tick of a schedule on this machine: one run, one at a time, within its deadline."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from penstock.cli.edge import settings_of
from penstock.cli.run import new_run_id, start_cluster
from penstock.core.errors import Interrupted, LifecycleError, NotReady
from penstock.core.settings import Settings
from penstock.core.spec import ModelSpec

if TYPE_CHECKING:
    from penstock.core.runs import RunRecord
    from penstock.core.schedules import Schedule
    from pipelines.runner import Sight
    from pipelines.schedules.kept import Tick

Show = Callable[["Sight"], None]


def folder_of(settings: Settings) -> Path:
    """Return where the schedules of this machine are."""
    return settings.home / "schedules"


def spawn(env: dict[str, str], folder: Path, name: str, because: str) -> subprocess.Popen[bytes]:
    """Start a process that fires a schedule; it outlives this one.

    Args:
        env: Of the process.
        folder: Of the schedules.
        name: The schedule's.
        because: What asked for it.
    """
    path = folder / "logs" / f"{name}.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "penstock.cli.schedule_tick", name, because],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**env, "PYTHONUNBUFFERED": "1"},
            start_new_session=True,  # Ctrl-C is meant for the scheduler, which ends it in turn
        )


def fire(env: dict[str, str], name: str, because: str, *, show: Show) -> Tick:
    """Run what a schedule says, now; return the tick as it was written down.

    A run of the same model that goes on, also one that a killed scheduler left behind, keeps its
    lock: this tick is skipped then.

    Args:
        env: Of the steps.
        name: The schedule's.
        because: What asked for it.
        show: Told what is going on.
    """
    from penstock.core.documents import parse_spec
    from pipelines.schedules.kept import Schedules, Tick
    from serving.local.processes import hold, holder

    settings = settings_of(env)
    store = Schedules(folder_of(settings))
    schedule = store.get(name).schedule
    model = parse_spec(json.dumps(schedule.spec), where=f"schedule {name}")
    begun = Tick(at=time.time(), because=because, outcome="running", run_id=new_run_id())
    path = store.folder / f"{model.name}.lock"
    lock = hold(path)
    if lock is None:
        told = f"a run of {model.name} goes on (process {holder(path)})"
        tick = begun.model_copy(update={"outcome": "skipped", "told": told, "run_id": ""})
        store.tell(name, tick)
        return tick
    with lock:
        store.tell(name, begun)
        env = {**env, "PENSTOCK_RUN_ID": begun.run_id}
        outcome, told = "failed", "it ended without a word"
        try:
            record = _run(schedule, model, env, (because, lock.fileno()), show)
            outcome = "done" if record.outcome == "done" else "failed"
            told = str(record.headline)
        except _Late as problem:
            outcome, told = "deadline", str(problem)
        except (KeyboardInterrupt, Interrupted):
            outcome, told = "interrupted", "ended by a person or by the end of the scheduler"
            raise
        except LifecycleError as problem:
            told = str(problem).partition("\n")[0]
            raise
        finally:
            seconds = round(time.time() - begun.at, 3)
            update = {"outcome": outcome, "told": told, "seconds": seconds}
            tick = begun.model_copy(update=update)
            store.tell(name, tick)
    return tick


class _Late(LifecycleError):
    """The deadline passed."""


def _run(
    schedule: Schedule, model: ModelSpec, env: dict[str, str], asked: tuple[str, int], show: Show
) -> RunRecord:
    from pipelines.runner import Asked, execute

    because, lock = asked
    ends_at = time.monotonic() + schedule.deadline_s

    def watch(sight: Sight) -> None:
        show(sight)
        if time.monotonic() >= ends_at:
            running = [s.step for s in sight.steps if s.outcome == "running"]
            where = f" in {running[-1]}" if running else ""
            raise _Late(f"ended{where}: it took longer than its deadline, {schedule.deadline_s} s")

    began_at = time.time()
    if model.target == "local":
        start_cluster(env)
        _finish(model, env, schedule.deadline_s)
    parameters = dict(schedule.parameters)
    if schedule.pipeline == "retrain":
        parameters["because"] = because
    what = Asked(schedule.pipeline, parameters, (lock,))
    return execute(model, env, started_at=began_at, watch=watch, asked=what)


def _finish(model: ModelSpec, env: dict[str, str], within_s: float) -> None:
    """Let the controller finish a rollout that a killed run left behind."""
    from components.steps.detect import place_of

    place = place_of(settings_of(env), model, time.time())
    if not place.rollout or place.holder:
        return
    keeper = [sys.executable, "-m", "penstock.cli", "controller", "--once"]
    try:
        subprocess.run(keeper, env=env, check=False, timeout=within_s, stdout=sys.stderr)
    except subprocess.TimeoutExpired as problem:
        reason = f"the rollout of {place.rollout} came to no end"
        raise NotReady(model.name, reason=reason, waited_s=within_s) from problem


def main() -> int:
    """Fire the schedule that is named: the process that the scheduler starts."""
    from penstock.cli.edge import environment
    from penstock.cli.watch import Lines

    def end(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, end)
    name, because = sys.argv[1:3]
    with suppress(KeyboardInterrupt, Interrupted):
        try:
            tick = fire(environment(), name, because, show=Lines())
        except LifecycleError as problem:
            sys.stderr.write(f"error: {problem}\n")
            return problem.exit_code
        sys.stderr.write(f"{tick.outcome}: {tick.told}\n")
        return 0 if tick.outcome in ("done", "skipped") else 1
    return 130


if __name__ == "__main__":
    sys.exit(main())
