"""A step's own page: its headline first, then its section of the run's report, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from components.steps.context import step
from components.steps.report import render, render_step
from components.steps.scalars import scalars
from penstock.core.errors import PolicyRefused
from penstock.core.runs import RunRecord, StepRecord
from tests.unit.components.recorded import SPEC, blocked, no_change, promoted

MLFLOW = "https://mlflow.example"


def _page(run: RunRecord, name: str, tracking_uri: str = "") -> str:
    found = next(each for each in run.steps if each.step == name)
    return render_step(found, run.spec, run.run_id, tracking_uri)


def _headline(page: str) -> tuple[str, str]:
    found = re.search(
        r'<h1>.*?<span[^>]*>(.*?)</span></h1>(?:<p class="headline">(.*?)</p>)?', page
    )
    assert found is not None
    return found[1], found[2] or ""


@pytest.mark.parametrize(
    ("run", "decision", "reason"),
    [
        (promoted(), "promoted", "proven live"),
        (
            blocked(),
            "blocked",
            "evaluate: compared with version 1: it lost skill &#x27;table&#x27;",
        ),
        (no_change(), "no change", "base, data, strategy"),
    ],
)
def test_a_run_says_first_what_came_of_it(run: RunRecord, decision: str, reason: str) -> None:
    said = _headline(render(run))
    assert said[0] == decision
    assert said[1].startswith(reason)


@pytest.mark.parametrize(
    ("name", "decision", "reason"),
    [
        ("detect_changes", "changed", "data.train: "),
        ("scan", "passed", "6 gates; licence: apache-2.0"),
        ("check_data", "passed", "6 expectations on 2 data sets"),
        ("train", "trained", "lora: trained in 36 s"),
        ("quantize", "accept", "w8a8: 52% of the size"),
        ("evaluate", "pass", "a loss of more than"),
        ("rollout", "promoted", "skills-v2 took over from skills-v1: proven live"),
    ],
)
def test_a_step_says_first_what_came_of_it(name: str, decision: str, reason: str) -> None:
    page = _page(promoted(), name)
    said = _headline(page)
    assert said[0] == decision
    assert said[1].startswith(reason)
    assert '<p class="lead">' not in page, "not a second time"
    assert page.count("<h2>") == 0


def test_a_step_that_was_blocked_names_the_skill_and_shows_it() -> None:
    decision, reason = _headline(page := _page(blocked(), "evaluate"))
    assert decision == "blocked"
    assert "it lost skill &#x27;table&#x27;" in reason
    assert "Next: the report shows every skill" in page
    assert "<svg" in page


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("train", "/#/runs/0a1b2c3d4e5f"),
        ("rollout", "/#/models/skills/versions/2"),
        ("scan", None),
    ],
)
def test_mlflow_is_linked_and_readable(name: str, place: str | None) -> None:
    page = _page(promoted(), name, MLFLOW)
    assert (f">{MLFLOW}{place}</a>" in page) is (place is not None)
    assert "href" not in _page(promoted(), name, "sqlite:////mlflow.db")


def test_the_run_links_the_version_it_made() -> None:
    assert f'href="{MLFLOW}/#/models/skills/versions/2"' in render(promoted(), (), MLFLOW)
    assert f'href="{MLFLOW}/#/runs/0a1b2c3d4e5f"' in render(blocked(), (), MLFLOW)
    assert f'href="{MLFLOW}/#/models/skills/versions/1"' in render(no_change(), (), MLFLOW)


def test_a_step_that_failed_with_half_of_it_written_down_has_a_page() -> None:
    half = blocked().steps[-1].model_copy(update={"step": "deploy", "detail": {"devices": "none"}})
    decision, reason = _headline(render_step(half, SPEC, "r1"))
    assert (decision, reason.partition(":")[0]) == ("blocked", "deploy")
    done = StepRecord(step="deploy", outcome="done", started_at=1.0, detail={"devices": "none"})
    with pytest.raises(KeyError):
        render_step(done, SPEC, "r1")


def test_the_frame_writes_the_page_whatever_comes_of_the_step(tmp_path: Path) -> None:
    env, page = {"PENSTOCK_HOME": str(tmp_path)}, tmp_path / "task" / "page"
    with step("scan", env, str(page), '{"name": "m"}') as context:
        context.detail |= {"gates": [], "licence": "mit"}
    assert _headline(page.read_text()) == ("passed", "0 gates; licence: mit")
    with pytest.raises(PolicyRefused), step("scan", env, str(page)):
        raise PolicyRefused("pickle: no")
    assert _headline(page.read_text()) == ("blocked", "scan: pickle: no")


def test_a_page_that_cannot_be_drawn_does_not_undo_the_work(tmp_path: Path) -> None:
    env, page = {"PENSTOCK_HOME": str(tmp_path)}, tmp_path / "page"
    with step("scan", env, str(page)) as context:
        context.detail |= {"gates": [{"name": "without the rest"}]}
    assert "could not be drawn" in page.read_text()
    record = tmp_path / "runs" / "adhoc" / "steps" / "scan.json"
    assert StepRecord.model_validate_json(record.read_text()).outcome == "done"


def test_the_numbers_have_names_that_stay() -> None:
    """Whoever renames one breaks the comparison with every earlier run: the document lists them."""
    found = {each.step: scalars(each.step, each.detail) for each in promoted().steps}
    assert found["evaluate"].keys() == {
        *("exact_match", "exact_match_gain", "perplexity"),
        *(
            f"exact_match/{s}"
            for s in ("add", "compare", "date", "decline", "json", "sort", "table")
        ),
    }
    assert found["rollout"] == {
        "decision_s": 66.4,
        "pairs": 1034.0,
        "user_requests_total": 2651.0,
        "user_requests_failed": 0.0,
        "user_requests_on_candidate": 693.0,
    }
    assert found["quantize"] == {"recipes_tried": 2.0, "size_bytes": 4.16e6, "size_share": 0.52}
    assert found["check_data"] == {
        "expectations": 6.0,
        "expectations_failed": 0.0,
        "rows/train": 600.0,
        "rows/evaluate": 600.0,
    }
    assert found["scan"] == {}


def test_a_number_that_is_none_is_left_out() -> None:
    detail = {"exact_match": {"share": 0.5}, "skills": [], "perplexity": float("inf")}
    assert scalars("evaluate", detail) == {"exact_match": 0.5}
    assert scalars("evaluate", {"verdict": {"outcome": "skipped"}}) == {}
    assert scalars("quantize", {"outcome": "skipped", "tried": [], "recipe": None}) == {
        "recipes_tried": 0.0
    }
