from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from penstock.core.errors import DataRefused
from registry.datachecks import Sets, check, in_order, require

# great-expectations imports modules that Python gives up
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def _row(number: int, **changes: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": changes.pop("prompt", f"what is {number}?")}]
    return {"id": f"r{number}", "skill": "s", "messages": messages, "answer": "x", **changes}


def _sets(folder: Path, **sets: list[dict[str, Any]]) -> Sets:
    paths = {}
    for name, rows in sets.items():
        paths[name] = folder / f"{name}.jsonl"
        paths[name].write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Sets(paths, context_length=10, count_tokens=lambda row: len(row.prompt.split()))


def _failed(report: dict[str, Any]) -> dict[str, list[str]]:
    return {
        f"{suite['name']}: {e['name']}": e["failing_rows"]
        for suite in report["suites"]
        for e in suite["expectations"]
        if not e["passed"]
    }


def test_good_sets_pass_and_the_docs_are_rendered(tmp_path: Path) -> None:
    sets = _sets(tmp_path, train=[_row(1), _row(2)], evaluate=[_row(3), _row(4)])
    report = check(sets, tmp_path / "docs")
    assert _failed(report) == {}
    assert [(s["name"], s["rows"], s["passed"]) for s in report["suites"]] == [
        ("train", 2, True),
        ("evaluate", 2, True),
    ]
    assert "<html" in Path(report["docs"]).read_text()
    require(report)


def test_every_mistake_is_found_and_its_rows_are_named(tmp_path: Path) -> None:
    evaluate = [
        _row(1, prompt="seen in training"),
        _row(2, answer=""),
        _row(3, prompt="twice"),
        _row(4, prompt="twice"),
        _row(5, id="r6"),
        _row(6),
        _row(7, prompt="far " * 11),
    ]
    train = [_row(1, prompt="seen in training"), _row(8)]
    report = check(_sets(tmp_path, train=train, evaluate=evaluate), None)
    assert _failed(report) == {
        "evaluate: ids are unique": ["r6", "r6"],
        "evaluate: no prompt comes twice": ["r3", "r4"],
        "evaluate: answers are not empty": ["r2"],
        "evaluate: rows fit the context": ["r7"],
        "evaluate: no prompt is in the training set": ["r1"],
        "train: no prompt is in the evaluation set": ["r1"],
    }
    with pytest.raises(DataRefused) as refused:
        require(report)
    assert "no prompt comes twice: 2 rows fail, such as r3, r4" in str(refused.value)


def test_what_is_wrong_to_learn_from_is_found(tmp_path: Path) -> None:
    turn = {"role": "user", "content": "and then?"}
    train = [
        _row(1, prompt="  SEEN in\n training "),
        _row(2, answer=" \n"),
        _row(3, messages=[turn, {"role": "user", "content": "who?"}]),
        _row(4, messages=[{**turn, "role": "assistant"}]),
        _row(5, prompt="  "),
        _row(6, prompt="sound"),
    ]
    report = check(
        _sets(tmp_path, train=train, evaluate=[_row(1, prompt="seen in training")]), None
    )
    assert _failed(report) == {
        "train: answers are not empty": ["r2"],
        "train: no prompt is in the evaluation set": ["r1"],
        "train: questions are not empty": ["r5"],
        "train: roles are in order": ["r3", "r4"],
        "evaluate: no prompt is in the training set": ["r1"],
    }


@pytest.mark.parametrize(
    ("roles", "right"),
    [
        ("user", True),
        ("system user", True),
        ("developer user assistant user", True),
        ("user assistant tool", True),
        ("user assistant tool tool assistant user", True),
        ("", False),
        ("system", False),
        ("assistant", False),
        ("assistant user", False),
        ("user user", False),
        ("user assistant", False),
        ("user system user", False),
        ("user assistant robot", False),
        ("tool user", False),
    ],
)
def test_turns_are_in_the_order_in_which_they_are_answered(roles: str, right: bool) -> None:
    assert in_order(roles.split()) is right


def test_no_sets_are_no_suites(tmp_path: Path) -> None:
    assert check(_sets(tmp_path), tmp_path / "docs") == {"suites": [], "docs": ""}
    require({"suites": []})
