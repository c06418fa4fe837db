"""How attempts end: what is refused is not tried again, what was killed is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from components.steps import attempts
from components.steps.changes import Attempt
from penstock.core.runs import Failure, RunRecord, StepRecord
from penstock.core.settings import Settings

SPEC: dict[str, Any] = {"name": "m", "source": "hf://acme/m"}


def _run(*steps: StepRecord, outcome: str = "done", spec: dict[str, Any] = SPEC) -> RunRecord:
    return RunRecord.model_validate(
        {
            "run_id": "r1",
            "name": "m",
            "started_at": 0.0,
            "wall_s": 1.0,
            "outcome": outcome,
            "spec": spec,
            "steps": steps,
        }
    )


def _failed(kind: str, code: int) -> StepRecord:
    failure = Failure(kind=kind, message="skill table lost\nmore", exit_code=code)
    return StepRecord(step="evaluate", outcome="failed", started_at=0.0, failure=failure)


@pytest.mark.parametrize(
    ("run", "outcome", "headline"),
    [
        (_run(), "done", "done"),
        (_run(_failed("EvaluationFailed", 4), outcome="failed"), "refused", "blocked: evaluate"),
        (_run(_failed("RolledBack", 4), outcome="failed"), "refused", "rolled back: skill table"),
        (_run(_failed("Unproven", 4), outcome="failed"), "failed", "rolled back: skill table"),
        (_run(_failed("HubUnreachable", 3), outcome="failed"), "failed", "failed: evaluate"),
        (_run(_failed("Killed", 1), outcome="failed"), "interrupted", "failed: evaluate"),
        (_run(outcome="interrupted"), "interrupted", "interrupted: in before the first step"),
    ],
)
def test_how_it_ends(tmp_path: Path, run: RunRecord, outcome: str, headline: str) -> None:
    settings = Settings(home=tmp_path)
    attempts.begin(settings, "m", Attempt("sha256:1", "r0", 1.0, "done"))
    attempts.begin(settings, "m", Attempt("sha256:2", "r1", 2.0))
    attempts.conclude(settings, run)
    first, second = attempts.read(settings, "m")
    assert (first.outcome, second.outcome) == ("done", outcome)
    assert second.reason in ("", "skill table lost")
    assert str(run.headline).startswith(headline)


def test_a_run_that_did_not_train_ends_no_attempt(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    attempts.conclude(settings, _run())
    assert attempts.read(settings, "m") == []


def test_what_a_training_costs() -> None:
    train = StepRecord(step="train", outcome="done", started_at=0.0, seconds=1800.0)
    gpu = {**SPEC, "hardware": {"accelerator": "h200"}}
    many = {**gpu, "training": {"distributed": {"nodes": 2, "devices_per_node": 8}}}
    costs = [attempts.gpu_hours(_run(train, spec=spec)) for spec in (SPEC, gpu, many)]
    assert costs == [0.0, 0.5, 8.0]


@pytest.mark.parametrize(
    ("steps", "headline"),
    [
        ([("detect_changes", {"outcome": "no change", "reason": "all old"})], "no change: all old"),
        (
            [
                ("detect_changes", {"outcome": "changed", "reason": "data"}),
                ("rollout", {"outcome": "promoted", "reason": "proven"}),
            ],
            "promoted: proven",
        ),
        ([("rollout", {"outcome": "rolled_back", "reason": "asked"})], "rolled back: asked"),
        ([("evaluate", {"verdict": {"outcome": "pass", "reason": "99 %"}})], "pass: 99 %"),
    ],
)
def test_the_headline_is_the_last_decision(
    steps: list[tuple[str, dict[str, object]]], headline: str
) -> None:
    records = [
        StepRecord(step=name, outcome="done", started_at=0.0, detail=detail)
        for name, detail in steps
    ]
    run = _run(*records)
    assert str(run.headline) == headline
    assert run.summary()["headline"]["decision"] == headline.partition(":")[0]
