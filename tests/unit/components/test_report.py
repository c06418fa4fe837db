from __future__ import annotations

from components.steps.report import render
from penstock.core.runs import Failure, RunRecord, StepRecord

SCAN = StepRecord(
    step="scan",
    outcome="failed",
    started_at=10.0,
    seconds=1.5,
    detail={"gates": [{"name": "pickle", "outcome": "failed", "reason": "<b>weights.bin</b>"}]},
    failure=Failure(kind="PolicyRefused", message="pickle: no", hint="choose another"),
)


def _run(*steps: StepRecord, outcome: str = "failed") -> RunRecord:
    return RunRecord.model_validate(
        {
            "run_id": "r1",
            "name": "m",
            "started_at": 10.0,
            "wall_s": 2.0,
            "outcome": outcome,
            "spec": {"source": "hf://a/b"},
            "steps": steps,
        }
    )


def test_a_failed_run_says_why_and_what_next() -> None:
    page = render(_run(SCAN))
    assert "scan: pickle: no" in page
    assert "Next: choose another" in page


def test_foreign_text_is_escaped() -> None:
    page = render(_run(SCAN))
    assert "&lt;b&gt;weights.bin&lt;/b&gt;" in page
    assert "<b>" not in page


def test_the_page_needs_nothing_from_elsewhere() -> None:
    page = render(_run(SCAN))
    assert "src=" not in page
    assert "href=" not in page
    assert "prefers-color-scheme:dark" in page


def test_a_run_without_steps_has_a_page() -> None:
    assert "interrupted" in render(_run(outcome="interrupted"))


def _resolved(**more: object) -> StepRecord:
    detail = {"source": "hf://a/b@0", **more}
    return StepRecord(step="resolve", outcome="done", started_at=10.0, seconds=1.0, detail=detail)


def test_what_was_chosen_is_told_with_its_reasons() -> None:
    plan = {
        "told": "vllm on 1 x nvidia-l4, bf16, tp 1",
        "reasons": ["vllm runs bf16 on nvidia-l4: plain weights"],
        "warnings": ["no NVLink"],
        "rejected": [{"what": "w4a16, tp 1", "why": "fits too"}],
    }
    page = render(_run(_resolved(plan=plan), outcome="done"))
    assert "<h2>Plan</h2>" in page
    for told in (plan["told"], "plain weights", "no NVLink", "not w4a16, tp 1", "fits too"):
        assert str(told) in page


def test_where_nothing_was_left_open_there_is_no_plan() -> None:
    assert "Plan" not in render(_run(_resolved(), outcome="done"))
