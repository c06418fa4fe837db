"""What is not finished goes away, also when its owner is killed; what is alive stays."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from components.scratch import scratch

_OWNER = """
import sys
from pathlib import Path
from components.scratch import scratch
with scratch(Path(sys.argv[1])) as room:
    (room / "half").write_text("half")
    print(room, flush=True)
    sys.stdin.read()
"""


def owner(target: Path) -> tuple[subprocess.Popen[str], Path]:
    """Start a process that holds a folder until its input ends; return it and the folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", _OWNER, str(target)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def test_the_folder_is_empty_beside_its_target_and_gone_afterwards(tmp_path: Path) -> None:
    with scratch(tmp_path / "made") as room:
        assert list(room.iterdir()) == []
        (room / "whole").mkdir()
        (room / "whole").rename(tmp_path / "made")
    assert [path.name for path in tmp_path.iterdir()] == ["made"]
    with pytest.raises(ZeroDivisionError), scratch(tmp_path / "more") as room:
        _ = 1 / 0
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


def test_what_a_killed_owner_left_is_swept_and_a_living_owners_is_not(tmp_path: Path) -> None:
    target = tmp_path / "made"
    dead, left = owner(target)
    living, kept = owner(target)
    dead.send_signal(signal.SIGKILL)
    dead.communicate()
    try:
        assert (left / "half").exists(), "nobody removed it"
        with scratch(target):
            assert not left.exists()
            assert not left.parent.exists()
            assert (kept / "half").exists()
    finally:
        living.communicate("")
    assert list(tmp_path.iterdir()) == []


def test_what_is_nobodys_or_anothers_is_left_alone(tmp_path: Path) -> None:
    mine = tmp_path / ".made.notes"
    mine.mkdir()
    (mine / "text").write_text("kept")
    (tmp_path / ".made.file").write_text("kept")
    dead, other = owner(tmp_path / "other")
    dead.kill()
    dead.communicate()
    with scratch(tmp_path / "made"):
        assert other.exists()
    assert (mine / "text").exists()
    assert (tmp_path / ".made.file").exists()
