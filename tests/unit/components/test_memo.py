from pathlib import Path

import pytest

from components.steps.memo import remembered


def test_second_time_is_remembered(tmp_path: Path) -> None:
    calls: list[Path] = []

    def make(folder: Path) -> None:
        calls.append(folder)
        (folder / "result.txt").write_text("42")

    first = remembered(tmp_path / "memo", {"of": "a"}, tmp_path / "one", make)
    second = remembered(tmp_path / "memo", {"of": "a"}, tmp_path / "two", make)
    assert (first, second, len(calls)) == (False, True, 1)
    assert (tmp_path / "two" / "result.txt").read_text() == "42"


def test_other_inputs_are_other_results(tmp_path: Path) -> None:
    def make(folder: Path) -> None:
        (folder / "result.txt").write_text("x")

    remembered(tmp_path / "memo", {"of": "a"}, tmp_path / "one", make)
    assert not remembered(tmp_path / "memo", {"of": "b"}, tmp_path / "two", make)


def test_what_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    def make(folder: Path) -> None:
        (folder / "half").write_text("half")
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        remembered(tmp_path / "memo", {"of": "a"}, tmp_path / "one", make)
    assert list((tmp_path / "memo").iterdir()) == []
    assert not (tmp_path / "one").exists()
