"""Reports as Kubeflow's UI shows them: in its frame, in a browser, and to a person."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from components.steps.fitting import HTML_BYTES
from components.steps.report import render, render_step
from components.steps.sections import SECTIONS
from penstock.core.runs import RunRecord, StepRecord
from tests.fakes.kubeflow_viewer import Viewer, viewer
from tests.unit.components.recorded import blocked, no_change, promoted

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(
        shutil.which("chromium") is None,
        reason="no chromium on PATH: apt-get install -y --no-install-recommends chromium "
        "fonts-dejavu-core",
    ),
]

MLFLOW = "https://mlflow.example"
_WIDTH = 800
_FIRST_LOOK = 250.0
"""Pixels from the top: what is seen before anybody scrolls, and more."""


@pytest.fixture(scope="module")
def ui(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Viewer]:
    with viewer(tmp_path_factory.mktemp("chromium")) as shown:
        yield shown


def _pages() -> dict[str, tuple[str, str]]:
    """Return pages by name, each with what must be read of it."""
    sections = {each.step: each.title for each in SECTIONS}
    runs = {
        "promoted": (promoted(), "proven live (464 live requests)"),
        "blocked": (blocked(), "it lost skill 'table'"),
        "no change": (no_change(), "base, data, strategy, code and image are the champion's"),
    }
    pages = {name: (render(run, (), MLFLOW), told) for name, (run, told) in runs.items()}
    for run in (promoted(), blocked()):
        for step in run.steps:
            if step.step in sections:
                page = render_step(step, run.spec, run.run_id, MLFLOW)
                pages[f"{step.step}, {run.outcome}"] = (page, sections[step.step])
    return pages


PAGES = _pages()


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_read_where_the_ui_shows_it(ui: Viewer, name: str, tmp_path: Path) -> None:
    page, told = PAGES[name]
    picture = tmp_path / "page.png"  # pytest keeps it: look
    seen = ui.show(page, _WIDTH, picture)
    assert seen.errors == []
    assert seen.requests == []
    assert (seen.room, seen.wide) == (_WIDTH, _WIDTH), "nobody scrolls sideways"
    assert told in seen.text
    assert len(seen.svgs) == page.count("<svg")
    for left, right, wide, tall in seen.svgs:
        assert 0 <= left < right <= _WIDTH
        assert wide > 300
        assert tall > 20
    assert max(seen.bottoms.values()) < _FIRST_LOOK, "the headline is seen without scrolling"
    assert picture.stat().st_size > 5_000


@pytest.mark.parametrize("name", ["promoted", "blocked", "no change"])
def test_a_narrow_panel_shows_it_too(ui: Viewer, name: str) -> None:
    seen = ui.show(PAGES[name][0], 420)
    assert (seen.room, seen.wide) == (420, 420)


def test_the_largest_page_is_shown(ui: Viewer) -> None:
    rows = [{"name": f"g{n}", "outcome": "passed", "reason": "x" * 1900} for n in range(5000)]
    step = StepRecord(step="scan", outcome="done", started_at=1.0, detail={"gates": rows})
    page = render_step(step, {}, "r1")
    assert HTML_BYTES / 10 < len(page.encode()) <= HTML_BYTES
    seen = ui.show(page)
    assert "5,000 gates" in seen.text
    assert "more" in seen.text.splitlines()[-1]
    assert (seen.errors, seen.wide) == ([], seen.room)


def test_hostile_text_stays_text(ui: Viewer) -> None:
    evil = "<img src=http://elsewhere.example/x onerror=alert(1)><script>throw 1</script>"
    run: RunRecord = promoted()
    steps = tuple(
        each.model_copy(update={"detail": _poisoned(each.detail, evil)})
        if each.step in ("scan", "check_data", "evaluate")
        else each
        for each in run.steps
    )
    seen = ui.show(render(run.model_copy(update={"steps": steps, "name": evil})))
    assert (seen.requests, seen.errors) == ([], [])
    assert seen.text.count(evil) > 10


def _poisoned(value: object, evil: str) -> object:
    match value:
        case str() if value not in ("passed", "failed", "pass", "fail"):
            return evil
        case dict():
            return {key: _poisoned(each, evil) for key, each in value.items()}
        case list():
            return [_poisoned(each, evil) for each in value]
        case _:
            return value


@pytest.mark.parametrize(
    ("page", "heard"),
    [
        ("<img src='http://elsewhere.example/x.png'>", "requests"),
        ("<link rel=stylesheet href='http://elsewhere.example/x.css'>", "requests"),
        ("<script>fetch('http://elsewhere.example/x')</script>", "requests"),
        ("<script>localStorage.setItem('a', 'b')</script>", "errors"),
        ("<script>document.cookie = 'a=b'</script>", "errors"),
        ("<script>parent.document.title</script>", "errors"),
        ("<script>throw new Error('no')</script>", "errors"),
        ("<script>window.open('http://elsewhere.example')</script>", "errors"),
    ],
)
def test_the_frame_is_the_uis(ui: Viewer, page: str, heard: str) -> None:
    """What the UI forbids is seen here: else a page that needs it would pass."""
    assert getattr(ui.show(f"<!doctype html><body>told{page}"), heard)


def test_what_is_too_wide_is_seen(ui: Viewer) -> None:
    seen = ui.show("<!doctype html><body><div style='width:2000px'>told</div>")
    assert seen.wide > seen.room


def test_scripts_run(ui: Viewer) -> None:
    seen = ui.show("<!doctype html><body><script>document.body.append('told')</script>")
    assert "told" in seen.text
