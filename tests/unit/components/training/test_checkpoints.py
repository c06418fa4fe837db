"""A checkpoint counts when it is whole: its writer may have been killed at any byte."""

from __future__ import annotations

from pathlib import Path

import pytest

from components.training import checkpoints


def _checkpoint(folder: Path, step: int, *, marked: bool = True) -> Path:
    path = folder / f"checkpoint-{step}"
    (path / "inner").mkdir(parents=True)
    (path / "model.safetensors").write_bytes(b"weights")
    (path / "inner" / "state.json").write_text("{}")
    if marked:
        checkpoints.mark(path)
    return path


def test_the_last_whole_one_is_resumed_from_and_broken_ones_go(tmp_path: Path) -> None:
    assert checkpoints.last(tmp_path / "none") is None
    _checkpoint(tmp_path, 9)
    ten = _checkpoint(tmp_path, 10)
    killed = _checkpoint(tmp_path, 11, marked=False)
    (tmp_path / "README.md").write_text("of the trainer")
    assert checkpoints.last(tmp_path) == ten
    assert not killed.exists()
    assert checkpoints.step_of(ten) == 10
    assert checkpoints.step_of(None) == 0


@pytest.mark.parametrize("harm", ["shorter", "missing", "mark"])
def test_a_damaged_one_is_not_whole(tmp_path: Path, harm: str) -> None:
    path = _checkpoint(tmp_path, 4)
    assert checkpoints.whole(path)
    if harm == "shorter":
        (path / "model.safetensors").write_bytes(b"weigh")
    elif harm == "missing":
        (path / "inner" / "state.json").unlink()
    else:
        (path / ".whole.json").write_text('{"model')
    assert not checkpoints.whole(path)
    assert checkpoints.last(tmp_path) is None
    assert not path.exists()
