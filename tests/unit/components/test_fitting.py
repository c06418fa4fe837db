"""Pages are cut where they would be too long, say so, and stay whole."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.steps.fitting import DETAILS, Detail, Tables, fitting, markdown, shortened
from components.steps.report import render, render_step
from penstock.core.runs import RunRecord, StepRecord

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=80),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)


def _scan(gates: int, told: int) -> StepRecord:
    rows = [{"name": f"g{i}", "outcome": "passed", "reason": "<" * told} for i in range(gates)]
    return StepRecord(step="scan", outcome="done", started_at=1.0, detail={"gates": rows})


def _run(*steps: StepRecord) -> RunRecord:
    return RunRecord(
        run_id="r1", name="m", started_at=1.0, wall_s=1.0, outcome="done", spec={}, steps=steps
    )


def test_a_table_says_how_many_rows_it_leaves_out() -> None:
    drawn = Tables(2)(["a"], [["1"], ["2"], ["3"], ["4"], ["5"]])
    assert drawn.count("<tr>") == 3
    assert "… and 3 more" in drawn
    assert "more" not in Tables(5)(["a"], [["1"]] * 5)


def test_a_long_text_says_how_much_is_left_out() -> None:
    assert shortened({"a": ["x" * 30, 1, None]}, 10) == {
        "a": ["xxxxxxxxxx… and 20 more characters", 1, None]
    }


@given(JSON)
def test_what_is_short_stays_as_it_is(value: Any) -> None:
    assert shortened(value, 80) == value


@pytest.mark.parametrize(
    ("gates", "told", "most"), [(5000, 10, 2_000_000), (30, 100_000, 300_000), (5000, 900, 60_000)]
)
def test_a_page_fits_and_is_whole(gates: int, told: int, most: int) -> None:
    step = _scan(gates, told)
    for page in (render(_run(step), most=most), render_step(step, {}, "r1", most=most)):
        assert len(page.encode()) <= most
        assert "more" in page
        _whole(page)
    assert "5,000 gates" in page if gates == 5000 else "30 gates" in page


def test_where_not_even_little_fits_the_headline_is_left() -> None:
    page = render(_run(_scan(8, 100)), most=6_000)
    assert "too long for a page" in page
    assert '<span class="badge good">done</span>' in page
    _whole(page)


def test_the_fullest_that_fits_is_taken() -> None:
    def drawn(detail: Detail) -> str:
        return "x" * detail.characters

    assert [len(fitting(drawn, "", most)) for most in (50_000, 20_000, 19_999, 500, 99)] == [
        *(20_000, 20_000, 2_000, 400, 0)
    ]
    assert [d.characters for d in DETAILS] == sorted((d.characters for d in DETAILS), reverse=True)


@given(
    st.text("ab*: \n", max_size=400),
    st.lists(st.lists(st.text(max_size=60), min_size=2, max_size=2), max_size=30),
    st.integers(300, 2_000),
)
def test_markdown_fits_and_its_rows_are_rows(lead: str, rows: list[list[str]], most: int) -> None:
    text = markdown(lead, ("new", "what"), rows, most)
    assert len(text) <= most
    table = [line for line in text.split("\n") if line.startswith("| ")]
    assert all(line.replace("\\\\", "").replace("\\|", "").count("|") == 3 for line in table)
    left = len(rows) - len(table[1:])
    assert (f"… and {left:,} more\n" in text) is (left > 0)


def test_markdown_says_how_many_rows_it_leaves_out() -> None:
    rows = [[f"data.{i}", "a|b\nc" * 10] for i in range(20_000)]
    text = markdown("**changed**: all of it", ("new", "what"), rows)
    assert len(text) <= 400_000
    assert text.startswith("**changed**: all of it\n")
    assert text.rstrip().endswith("more")
    assert "a\\|b c" in text


def _whole(page: str) -> None:
    """Raise unless every element is closed: what we draw is well-formed, but for two tags."""
    body = page.partition("<body>")[2].removesuffix("</html>\n").removesuffix("</body>")
    ET.fromstring(f"<body>{body.replace('<br>', '<br/>')}</body>")  # noqa: S314 - our own
