"""The frame of a step: settings, progress, and a record of what came of it."""

from __future__ import annotations

import gc
import json
import os
import sys
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from components.steps.deadline import count, within
from penstock.core.errors import LifecycleError, TriedEnough, disk_errors
from penstock.core.runs import Failure, StepRecord
from penstock.core.settings import Settings

_PROGRESS_PERIOD_S = 0.2


@dataclass
class Context:
    """What a step's work may use besides its inputs."""

    settings: Settings
    folder: Path
    """Where this run's step records lie."""

    name: str
    detail: dict[str, Any] = field(default_factory=dict)
    """What the step found: shown in the report and the summary."""

    reused: bool = False
    """Set when the work was done by an earlier run."""

    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    """The environment, for secrets that the spec names: connections of databases."""

    _told_at: float = 0.0

    def progress(self, done: float, total: float, unit: str) -> None:
        """Tell whoever watches how far the work is; called as often as the work likes."""
        now = time.monotonic()
        if done < total and now - self._told_at < _PROGRESS_PERIOD_S:
            return
        self._told_at = now
        body = {"done": done, "total": total, "unit": unit}
        write_atomically(self.folder / f"{self.name}.progress", json.dumps(body))


@contextmanager
def step(name: str, env: Mapping[str, str], page: str = "", spec: str = "{}") -> Iterator[Context]:
    """Run a step's work; its record is on disk before and after, also when it fails.

    Args:
        name: Of the step.
        env: The environment, for the settings.
        page: Where KFP wants a page about it; empty: nowhere.
        spec: The document `model.yaml`, as JSON, for that page.
    """
    settings = Settings.from_env(env)
    folder = settings.run_dir / "steps"
    folder.mkdir(parents=True, exist_ok=True)
    context = Context(settings, folder, name, env=env)
    started_at, start = time.time(), time.monotonic()
    path = folder / f"{name}.json"
    _once_more(settings, name)
    write_record(path, StepRecord(step=name, outcome="running", started_at=started_at))
    outcome, failure = "failed", None
    try:
        with disk_errors(settings.home), within(settings, name):
            yield context
        outcome = "reused" if context.reused else "done"
    except LifecycleError as problem:
        failure = failure_of(problem)
        sys.stderr.write(
            f"error: {problem}\n" + (f"next: {problem.hint}\n" if problem.hint else "")
        )
        raise
    except Exception as problem:
        failure = failure_of(problem)
        traceback.print_exc()
        raise
    finally:
        record = StepRecord.model_validate(
            {
                "step": name,
                "outcome": outcome,
                "started_at": started_at,
                "seconds": time.monotonic() - start,
                "detail": context.detail,
                "failure": failure,
            }
        )
        write_record(path, record)
        if page:
            _show(page, record, spec, settings)
        # the process ends next; collecting what torch's modules left would take it a second
        gc.freeze()


def _once_more(settings: Settings, name: str) -> None:
    """Raise if a task may not be tried again, before the record of the last try is written over."""
    try:
        count(settings, name)
    except TriedEnough as problem:
        sys.stderr.write(f"error: {problem}\nnext: {problem.hint}\n")
        raise


def _show(path: str, record: StepRecord, spec: str, settings: Settings) -> None:
    """Write the page; one that cannot be drawn does not undo hours of work."""
    from components.steps.report import render_step

    try:
        text = render_step(record, json.loads(spec), settings.run_id, settings.tracking_uri)
    except Exception:  # noqa: BLE001 - the record is whole, and the run's report draws it again
        traceback.print_exc()
        text = "<!doctype html><p>This page could not be drawn: the task's log says why.</p>\n"
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    write_atomically(Path(path), text)


def failure_of(problem: Exception) -> Failure:
    """Return the record of an error; one of ours brings its hint and exit code."""
    if isinstance(problem, LifecycleError):
        return Failure(
            kind=type(problem).__name__,
            message=str(problem),
            hint=problem.hint,
            exit_code=problem.exit_code,
        )
    return Failure(
        kind=type(problem).__name__,
        message=str(problem) or type(problem).__name__,
        hint="this is a bug in Penstock: the log has the traceback",
    )


def write_record(path: Path, record: StepRecord) -> None:
    """Store a record so that a reader sees the old one or the new one, never half."""
    write_atomically(path, record.model_dump_json(indent=1))


def write_atomically(path: Path, text: str) -> None:
    """Replace a file's content in one step."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    scratch.write_text(text)
    scratch.replace(path)


def read_records(folder: Path) -> tuple[StepRecord, ...]:
    """Return a run's step records in the order they started."""
    records = [StepRecord.model_validate_json(p.read_text()) for p in folder.glob("*.json")]
    return tuple(sorted(records, key=lambda r: r.started_at))
