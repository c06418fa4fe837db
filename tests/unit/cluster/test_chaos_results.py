"""The table of what chaos did."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cluster.chaos_results import FOLDER, Result, note


def test_rollouts_of_one_kind_are_one_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FOLDER, str(tmp_path / "out"))
    for decision, held, harm, seconds in (
        ("promoted", [], 0, 50.4),
        ("rolled_back", ["stale: no evidence for 90 s"], 3, 210.0),
    ):
        note(
            Result("kubelet killed", "soak", "route", "good", decision, "", held, harm, [], 600,
                   seconds)
        )  # fmt: skip
    assert (tmp_path / "out" / "chaos.md").read_text().splitlines()[2:] == [
        "| kubelet killed | route | good | 2 | 1 promoted, 1 rolled_back | 1 | 3 / 1,200 | 50-210 |"
    ]
