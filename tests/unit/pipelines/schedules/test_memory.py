"""What is known survives a restart; what cannot be read is known no more."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.schedules.drift import Watched
from pipelines.schedules.memory import Memory, recall


def test_it_is_read_back_as_it_was(tmp_path: Path) -> None:
    watched = Watched("m-v1", 1000, 10.0, 20, 3.0, (1.5, -2.0, 0.0, 3.25, 4.0))
    memory = Memory(
        started={"nightly": 1.5},
        watched={"nightly": {"new": Watched("m-v1"), "error_rate": watched}},
        cursors={"nightly": ("m-v1", "at")},
    )
    path = tmp_path / "watch" / "local.json"
    memory.keep(path)
    assert recall(path) == memory


@pytest.mark.parametrize("text", [None, "", "{", '{"of": "another version"}'])
def test_what_cannot_be_read_begins_anew(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "local.json"
    if text is not None:
        path.write_text(text)
    assert recall(path) == Memory()
