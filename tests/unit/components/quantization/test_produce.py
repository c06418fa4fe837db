"""A checkpoint is made whole or not at all, whatever happens to the worker."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from components.quantization.child import run
from components.quantization.fit import Machine
from components.quantization.produce import machine_here, produce, sensitivities
from penstock.core.errors import (
    CheckpointBroken,
    ConfigurationError,
    DataRefused,
    DiskFull,
    LifecycleError,
    RecipeImpossible,
)
from penstock.core.recipes import Fp8, Fp8Dynamic
from tests.unit.components.quantization.parents import make_parent

FAKE = str(Path(__file__).with_name("fake_worker.py"))


def machine(deed: str) -> Machine:
    return Machine(1 << 40, worker=(FAKE, deed))


def ignore(_done: int, _total: int, _what: str) -> None:
    """Nobody is told."""


@pytest.mark.parametrize(
    ("deed", "error", "told"),
    [
        ("crash", RecipeImpossible, "failed while quantizing: ValueError: no such kernel"),
        ("kill", RecipeImpossible, "killed while quantizing .signal 9.: probably out of memory"),
        ("full", DiskFull, "no space left for"),
        ("lie", CheckpointBroken, "quantiz"),
    ],
)
def test_whatever_happens_to_the_worker_nothing_is_left(
    tmp_path: Path, deed: str, error: type[LifecycleError], told: str
) -> None:
    parent, target = make_parent(tmp_path / "parent"), tmp_path / "made" / "fp8"
    before = {p.name: p.read_bytes() for p in parent.iterdir()}
    with pytest.raises(error, match=told) as raised:
        produce(parent, Fp8Dynamic(), target, [], ignore, machine=machine(deed))
    assert list((tmp_path / "made").iterdir()) == []
    assert {p.name: p.read_bytes() for p in parent.iterdir()} == before
    assert raised.value.hint


def test_what_the_library_printed_last_is_told(tmp_path: Path) -> None:
    parent = make_parent(tmp_path / "parent")
    with pytest.raises(RecipeImpossible) as raised:
        produce(parent, Fp8Dynamic(), tmp_path / "x", [], ignore, machine=machine("crash"))
    assert "a line that a library prints" in raised.value.hint
    assert str(raised.value.__cause__) == "here"


def test_a_worker_that_cannot_start_is_an_error_not_a_hang(tmp_path: Path) -> None:
    with pytest.raises(RecipeImpossible, match="failed while starting"):
        run({"task": "x"}, ignore, worker=(str(tmp_path / "not-there.py"),))


def test_what_is_refused_beforehand_makes_no_folder(tmp_path: Path) -> None:
    parent = make_parent(tmp_path / "parent")
    with pytest.raises(RecipeImpossible, match="GB of memory"):
        produce(parent, Fp8Dynamic(), tmp_path / "a" / "b", [], ignore, machine=Machine(1))
    with pytest.raises(DataRefused, match="calibration set is empty"):
        produce(parent, Fp8(), tmp_path / "a" / "b", [], ignore, machine=machine("lie"))
    with pytest.raises(ConfigurationError, match="exists already"):
        produce(parent, Fp8Dynamic(), parent, [], ignore, machine=machine("lie"))
    assert not (tmp_path / "a").exists()


def test_a_broken_parent_is_not_quantized(tmp_path: Path) -> None:
    parent = make_parent(tmp_path / "parent")
    with (parent / "model.safetensors").open("r+b") as file:
        file.truncate(5000)
    with pytest.raises(CheckpointBroken, match=r"model\.safetensors"):
        produce(parent, Fp8Dynamic(), tmp_path / "x", [], ignore, machine=machine("lie"))


def test_the_worker_is_asked_what_the_recipe_says(tmp_path: Path) -> None:
    request = {"task": "modelopt", "parent": str(tmp_path), "tokens": [[1, 2]]}
    told: list[tuple[int, int, str]] = []
    ran = run(request, lambda *each: told.append(each), worker=(FAKE, "echo"))
    assert ran.result == {"request": request}
    assert ran.peak_rss_bytes == 123
    assert ran.wall_s > 0
    assert told == [(2, 4, "quantizing")]


def test_an_interrupted_caller_takes_its_worker_along() -> None:
    seen: list[int] = []

    def interrupt(_done: int, _total: int, what: str) -> None:
        if what.isdigit():
            seen.append(int(what))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run({"parent": "."}, interrupt, worker=(FAKE, "wait"))
    with pytest.raises(ProcessLookupError):
        os.kill(seen[0], 0)


_CALLER = """
import sys
from pathlib import Path
from components.quantization.fit import Machine
from components.quantization.produce import produce
from penstock.core.recipes import Fp8Dynamic

def tell(done, total, what):
    if what.isdigit():
        print(what, flush=True)

machine = Machine(1 << 40, worker=(sys.argv[1], "wait"))
produce(Path(sys.argv[2]), Fp8Dynamic(), Path(sys.argv[3]), [], tell, machine=machine)
"""


def test_what_a_killed_caller_left_is_removed_by_the_next(tmp_path: Path) -> None:
    parent, target = make_parent(tmp_path / "parent"), tmp_path / "made" / "fp8"
    arguments = [sys.executable, "-c", _CALLER, FAKE, str(parent), str(target)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as caller:
        assert caller.stdout is not None
        assert caller.stdout.readline(), "the worker is at work"
        caller.send_signal(signal.SIGKILL)
    left = list(target.parent.iterdir())
    assert [path.name[:5] for path in left] == [".fp8."]
    with pytest.raises(CheckpointBroken):  # this one does not come far either, but it cleans up
        produce(parent, Fp8Dynamic(), target, [], ignore, machine=machine("lie"))
    assert list(target.parent.iterdir()) == []


def test_progress_bars_stay_out_of_the_workers_log() -> None:
    bar = "from tqdm import tqdm; assert list(tqdm(range(3), disable=False)) == [0, 1, 2]"
    silence = "from components import worker; worker._no_bars(); "
    for begin, silent in (("", False), (silence, True)):
        ran = subprocess.run(
            [sys.executable, "-c", begin + bar], capture_output=True, text=True, check=True
        )
        assert (ran.stderr == "") is silent


def test_sensitivities_are_measured_per_group_of_layers_that_engines_fuse(tmp_path: Path) -> None:
    parent = make_parent(tmp_path / "parent")
    found = sensitivities(parent, ["a b"], ignore, machine=machine("rank"))
    assert [len(s.layers) for s in found] == [1, 2, 1, 3, 1, 2, 1, 3]
    with pytest.raises(DataRefused, match="empty"):
        sensitivities(parent, [], ignore, machine=machine("rank"))


def test_this_machine_has_some_memory() -> None:
    assert machine_here().memory_bytes > 1 << 20
