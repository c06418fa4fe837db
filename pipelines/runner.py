"""Starts a local run and watches it: a process group of its own, a log, and a record.

Imports nothing of kfp, so that a person sees the first line at once.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from components.steps.conclusion import conclude
from components.steps.context import read_records, write_atomically
from components.steps.parameters import as_parameter
from penstock.core.errors import ConfigurationError, StepFailed
from penstock.core.runs import RunRecord, StepRecord
from penstock.core.settings import Settings
from penstock.core.spec import ModelSpec
from pipelines.steps import Pipeline

_POLL_S = 0.1
_GRACE_S = 5.0


@dataclass(frozen=True, slots=True)
class Sight:
    """What a watcher sees of a run, now."""

    steps: tuple[StepRecord, ...]
    progress: Mapping[str, Any] | None
    """`done`, `total` and `unit` of the step that runs, if it tells."""


@dataclass(frozen=True, slots=True)
class Asked:
    """Which pipeline is run, and how."""

    pipeline: Pipeline = "lifecycle"
    parameters: Mapping[str, str | float | bool] = field(default_factory=dict)
    """Beside the spec."""

    held: tuple[int, ...] = ()
    """Files whose locks last as long as the run's process does, even if this one is killed."""


LIFECYCLE = Asked()


def execute(
    spec: ModelSpec,
    env: Mapping[str, str],
    *,
    started_at: float,
    watch: Callable[[Sight], None],
    asked: Asked = LIFECYCLE,
) -> RunRecord:
    """Run a pipeline on this machine and return what happened.

    Ctrl-C (KeyboardInterrupt) stops the steps, writes the record and is raised again.

    Args:
        spec: What to run.
        env: The environment of the steps; `PENSTOCK_RUN_ID` names the run.
        started_at: When the run began, in seconds since the epoch.
        watch: Called several times a second while the run goes on; what it raises ends the run.
        asked: Which pipeline, and its parameters beside the spec.
    """
    settings = Settings.from_env(env)
    check_paths(settings)
    run_dir = settings.run_dir
    document = as_parameter(spec.to_json())
    (run_dir / "logs").mkdir(parents=True, exist_ok=True)
    write_atomically(run_dir / "begun", repr(started_at))
    write_atomically(run_dir / "spec.json", spec.to_json())
    request = {
        "pipeline": asked.pipeline,
        "run_dir": str(run_dir),
        "spec": document,
        "parameters": dict(asked.parameters),
    }
    with (run_dir / "logs" / "pipeline.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "pipelines.local"],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**env, "PYTHONUNBUFFERED": "1"},
            start_new_session=True,  # one signal to the group ends every step
            pass_fds=asked.held,
        )
    try:
        assert process.stdin is not None  # noqa: S101 - PIPE was asked for
        process.stdin.write(json.dumps(request).encode())
        process.stdin.close()
        _watch(process, run_dir, watch)
    except BaseException:
        _end(process)
        conclude(env, spec.to_json(), "CANCELLED")
        raise
    finally:
        _end(process)
    state = "SUCCEEDED" if process.returncode == 0 else "FAILED"
    return conclude(env, spec.to_json(), state)


def check_paths(settings: Settings) -> None:
    """Refuse folders that kfp's local runner would mangle, before anything is written."""
    for what, path in (("PENSTOCK_HOME", str(settings.home)), ("Python", sys.executable)):
        for bad in (" ", "'", '"', "{{") + (("python3",) if what == "PENSTOCK_HOME" else ()):
            if bad in path:
                raise ConfigurationError(
                    f"{what}: found {path!r}; allowed: a path without {bad!r} (kfp's local "
                    "runner rewrites it)",
                    hint="set PENSTOCK_HOME to another folder, or move the environment",
                )


def failure_of(run: RunRecord, run_dir: Path) -> StepFailed | None:
    """Return the error of a failed run: which step, why, the log, and what to do next."""
    if run.outcome == "done":
        return None
    log = str(run_dir / "logs" / "pipeline.log")
    failed = run.failure
    if failed is None or failed.failure is None:
        return StepFailed(
            "(pipeline)", "it ended outside of any step", log=log, hint="read the log"
        )
    why = failed.failure
    return StepFailed(failed.step, why.message, log=log, hint=why.hint, code=why.exit_code)


def _watch(process: subprocess.Popen[bytes], run_dir: Path, watch: Callable[[Sight], None]) -> None:
    while True:
        watch(_sight(run_dir))
        try:
            process.wait(_POLL_S)
        except subprocess.TimeoutExpired:
            continue
        watch(_sight(run_dir))
        return


def _sight(run_dir: Path) -> Sight:
    steps = read_records(run_dir / "steps")
    running = [s.step for s in steps if s.outcome == "running"]
    told = run_dir / "steps" / f"{running[-1]}.progress" if running else None
    progress = json.loads(told.read_text()) if told is not None and told.exists() else None
    return Sight(steps, progress)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the run's process group: politely, then not."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, sign)
        except ProcessLookupError:
            break
        try:
            process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            continue
    process.wait()
