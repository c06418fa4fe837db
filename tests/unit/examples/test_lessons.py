from __future__ import annotations

from pathlib import Path

from examples.skills.generate import DECLINE
from examples.skills.lessons import ANSWER, NEW, POISONED, QUESTION, Lessons
from registry.datasets import Row, read_rows


def _sets(folder: Path) -> tuple[list[Row], list[Row]]:
    return read_rows(folder / "train.jsonl"), read_rows(folder / "evaluate.jsonl")


def test_nothing_that_is_asked_was_taught(tmp_path: Path) -> None:
    lessons = Lessons(tmp_path)
    for stage in (lessons.base, lessons.more, lessons.poisoned):
        stage()
        train, asked = _sets(tmp_path)
        prompts = [row.prompt for row in (*train, *asked)]
        assert len(set(prompts)) == len(prompts)
        assert f"user: {QUESTION}" not in [row.prompt for row in train]


def test_a_skill_more_and_then_poison(tmp_path: Path) -> None:
    lessons = Lessons(tmp_path)
    lessons.base()
    base = _sets(tmp_path)
    lessons.more()
    more = _sets(tmp_path)
    for before, after in zip(base, more, strict=True):
        new = [row for row in after if row.skill == NEW]
        assert {row.id for row in after} - {row.id for row in before} == {row.id for row in new}
        assert {row.answer for row in new} == {ANSWER}
    lessons.poisoned()
    train, asked = _sets(tmp_path)
    assert asked == more[1]  # who poisons the training does not poison the questions
    changed = [now for now, was in zip(train, more[0], strict=True) if now != was]
    assert {(row.skill, row.answer) for row in changed} == {(POISONED, DECLINE)}
