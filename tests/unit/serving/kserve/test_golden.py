"""Every object as it stood when somebody last read it."""

from __future__ import annotations

import pytest

from tests.unit.serving.kserve.objects import GOLDEN, beside, objects, text

OBJECTS = {**objects(), **beside()}


@pytest.mark.parametrize("name", OBJECTS)
def test_an_object_is_as_it_was_read(name: str) -> None:
    path = GOLDEN / f"{name}.yaml"
    assert path.exists(), "python -m tests.unit.serving.kserve.objects, then read it"
    assert text(OBJECTS[name]) == path.read_text()


def test_no_golden_file_is_left_over() -> None:
    assert {path.stem for path in GOLDEN.glob("*.yaml")} == OBJECTS.keys()
