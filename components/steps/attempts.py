"""What was tried to train a model again, kept beside the runs: `HOME/retrain/NAME.json`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from components.steps.changes import Attempt
from components.steps.context import write_atomically
from penstock.core.runs import RunRecord
from penstock.core.settings import Settings

DETECT = "detect_changes"
_KEPT = 200
_GATE = 4
"""Exit code of a gate that said no: the same inputs would only be refused again."""


def read(settings: Settings, name: str) -> list[Attempt]:
    """Return the attempts of a model, the oldest first."""
    path = _path(settings, name)
    return [Attempt(**each) for each in json.loads(path.read_text())] if path.exists() else []


def begin(settings: Settings, name: str, attempt: Attempt) -> None:
    """Write down that one begins; the same run again replaces what it wrote."""
    others = [a for a in read(settings, name) if a.run_id != attempt.run_id]
    _write(settings, name, [*others, attempt])


def conclude(settings: Settings, run: RunRecord) -> None:
    """Write down how a run's attempt ended, if it made one."""
    past = read(settings, run.name)
    mine = [a for a in past if a.run_id == run.run_id]
    if not mine:
        return
    failure = run.failure.failure if run.failure is not None else None
    refused = failure is not None and failure.exit_code == _GATE and failure.kind != "Unproven"
    killed = failure is not None and failure.kind == "Killed"
    ended = replace(
        mine[0],
        outcome="refused" if refused else "interrupted" if killed else run.outcome,
        reason=failure.message.partition("\n")[0] if failure else "",
        gpu_hours=gpu_hours(run),
    )
    _write(settings, run.name, [ended if a is mine[0] else a for a in past])


def gpu_hours(run: RunRecord) -> float:
    """Return what a run's training cost: its devices, while the step lasted; CPUs are free."""
    spec = run.spec
    hardware = spec.get("hardware") or {}
    if hardware.get("accelerator", "cpu") == "cpu":
        return 0.0
    spread = (spec.get("training") or {}).get("distributed") or {}
    devices = spread.get("nodes", 1) * spread.get("devices_per_node", 1)
    return sum(s.seconds for s in run.steps if s.step == "train") * float(devices) / 3600


def _write(settings: Settings, name: str, attempts: Sequence[Attempt]) -> None:
    path = _path(settings, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps([asdict(a) for a in attempts[-_KEPT:]], indent=1) + "\n")


def _path(settings: Settings, name: str) -> Path:
    return settings.home / "retrain" / f"{name}.json"
