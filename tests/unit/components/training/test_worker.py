"""What the worker lacks or refuses comes back as the error it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from components.child import refuse
from components.training.produce import VOICE
from components.training.worker import require_libraries
from components.worker import error_of
from penstock.core.errors import ConfigurationError, DataRefused, DiskFull, TrainingFailed


def test_a_missing_library_is_named_with_the_extra_that_brings_it() -> None:
    require_libraries(("json",))
    with pytest.raises(ConfigurationError, match="needs no_such_one, which") as refused:
        require_libraries(("json", "no_such_one"))
    assert "`train`" in refused.value.hint


def test_our_errors_cross_the_border_as_they_are(tmp_path: Path) -> None:
    told = error_of(DataRefused("40 rows are longer", hint="shorten them"))
    with pytest.raises(DataRefused, match="40 rows are longer") as refused:
        refuse(VOICE, {"error": told}, 1, "", tmp_path)
    assert refused.value.hint == "shorten them"


@pytest.mark.parametrize(
    ("problem", "error", "said"),
    [
        (ValueError("no kernel"), TrainingFailed, "the trainer failed while training: ValueError"),
        (OSError(28, "No space left on device"), DiskFull, "no space left"),
        (RuntimeError("I/O error: (os error 28)"), DiskFull, "no space left"),
    ],
)
def test_others_are_told_in_our_words(
    tmp_path: Path, problem: Exception, error: type[Exception], said: str
) -> None:
    answer = {"error": error_of(problem), "progress": [3, 9, "training"]}
    with pytest.raises(error, match=said):
        refuse(VOICE, answer, 1, "last words", tmp_path)


def test_a_kind_that_is_none_of_ours_is_no_error_class(tmp_path: Path) -> None:
    for kind in ("Path", "disk_errors", "SystemExit", ""):
        with pytest.raises(TrainingFailed, match="failed while starting: x"):
            refuse(VOICE, {"error": {"kind": kind, "message": "x"}}, 1, "", tmp_path)


def test_the_kernel_s_kill_is_said_with_what_helps(tmp_path: Path) -> None:
    with pytest.raises(TrainingFailed, match="was killed while training") as killed:
        refuse(VOICE, {"progress": [3, 9, "training"]}, -9, "", tmp_path)
    assert "batch_rows" in killed.value.hint
