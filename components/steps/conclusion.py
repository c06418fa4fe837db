"""The end of a run: its record, its summary and its report, whatever came of it."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import penstock
from components.steps import attempts
from components.steps.context import read_records, write_atomically
from components.steps.report import render
from penstock.core.runs import Failure, RunRecord, StepRecord
from penstock.core.settings import Settings

State = Literal["SUCCEEDED", "FAILED", "CANCELLED"]


def conclude(env: Mapping[str, str], spec: str, state: str, report: str | None = None) -> RunRecord:
    """Write `record.json`, `summary.json` and `report.html` into the run's folder.

    Args:
        env: The environment, for the settings.
        spec: The document `model.yaml`, as JSON.
        state: How the steps ended, in KFP's words.
        report: Where KFP wants the page as well; None outside of KFP.
    """
    settings = Settings.from_env(env)
    run = collect(settings, json.loads(spec), state)
    attempts.conclude(settings, run)
    page = render(run, tracking_uri=settings.tracking_uri)
    settings.run_dir.mkdir(parents=True, exist_ok=True)
    write_atomically(settings.run_dir / "record.json", run.model_dump_json(indent=1))
    write_atomically(settings.run_dir / "summary.json", json.dumps(run.summary(), indent=1) + "\n")
    write_atomically(settings.run_dir / "report.html", page)
    if report is not None:
        Path(report).parent.mkdir(parents=True, exist_ok=True)
        Path(report).write_text(page)
    return run


def collect(settings: Settings, spec: dict[str, Any], state: str) -> RunRecord:
    """Return the record of the run from its step records on disk."""
    interrupted = state in ("CANCELED", "CANCELLED")
    steps = tuple(_ended(s, interrupted) for s in read_records(settings.run_dir / "steps"))
    started_at = min((s.started_at for s in steps), default=time.time())
    begun = settings.run_dir / "begun"
    if begun.exists():  # written by the local runner: the wait before the first step counts too
        started_at = float(begun.read_text())
    failed = state != "SUCCEEDED" or any(s.failure for s in steps)
    return RunRecord(
        run_id=settings.run_id,
        name=spec["name"],
        started_at=started_at,
        wall_s=time.time() - started_at,
        outcome="interrupted" if interrupted else "failed" if failed else "done",
        spec=spec,
        steps=steps,
        environment={
            "penstock": penstock.__version__,
            "python": platform.python_version(),
            "machine": f"{platform.system()} {platform.machine()}",
        },
    )


def _ended(record: StepRecord, interrupted: bool) -> StepRecord:
    """A step that still says `running` ended without a word."""
    if record.outcome != "running":
        return record
    seconds = time.time() - record.started_at
    if interrupted:
        return record.model_copy(update={"outcome": "interrupted", "seconds": seconds})
    failure = Failure(
        kind="Killed",
        message="the step's process ended without a word: killed, or out of memory",
        hint="look at the kernel log, free memory, and run again",
    )
    update = {"outcome": "failed", "seconds": seconds, "failure": failure}
    return record.model_copy(update=update)
