"""A cluster leaves nothing behind, however it ended. Runs outside of every cluster."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster import able, namespace
from tests.cluster.places import REPOSITORY, Place
from tests.cluster.traces import Traces, command, left, traces
from tests.cluster.waiting import until

pytestmark = [pytest.mark.cluster, pytest.mark.alone, pytest.mark.enable_socket]

PLACE = Place("cleanup")
_SECONDS = 600


@pytest.fixture(autouse=True)
def outside() -> None:
    """Skip where no cluster can be started: inside of one, or on another kind of machine."""
    if namespace.inside():
        pytest.skip("starts clusters, so it runs outside of them: see `make test-cluster`")
    if missing := able.missing(able.this_machine()):
        pytest.skip("; ".join(missing))


@pytest.fixture
def before(tmp_path: Path) -> Iterator[Traces]:
    """What is on the machine before a cluster is; afterwards the cluster is gone in any case."""
    _tool("down")
    yield traces(PLACE)
    _tool("down")


@pytest.fixture
def temporary(tmp_path: Path) -> Path:
    """The folder that the cluster's processes take for temporary files."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    return folder


def test_a_cluster_that_is_taken_down(before: Traces, temporary: Path) -> None:
    assert _starting(temporary).wait(_SECONDS) == 0
    inside = traces(PLACE)
    assert {line.split(":")[0] for line in left(before, inside)} == {
        "cgroup left", "file left", "process left",
    }, "the machine's own network, mounts and settings stay as they are meanwhile"  # fmt: skip
    _tool("down")
    assert left(before, traces(PLACE)) == []
    assert list(temporary.iterdir()) == []


def test_a_cluster_whose_processes_were_all_killed(before: Traces, temporary: Path) -> None:
    assert _starting(temporary).wait(_SECONDS) == 0
    first = namespace.first_process(PLACE)
    assert first is not None
    killed = [
        pid
        for pid in namespace.processes(first).values()
        if pid != first and not command(pid).startswith("containerd-shim")
    ]
    assert len(killed) > 10
    for pid in killed:
        _kill(pid)
    _tool("down")
    assert left(before, traces(PLACE)) == []


def test_a_start_whose_command_was_killed(before: Traces, temporary: Path) -> None:
    command = _starting(temporary)
    _said("machine prepared")
    command.kill()
    command.wait()
    assert namespace.first_process(PLACE) is not None, "the cluster goes on without it"
    _tool("down")
    assert left(before, traces(PLACE)) == []


def test_a_start_whose_supervisor_was_killed(before: Traces, temporary: Path) -> None:
    command = _starting(temporary)
    _said("CRDs created")
    first = namespace.first_process(PLACE)
    assert first is not None
    children = Path(f"/proc/{first}/task/{first}/children").read_text().split()
    _kill(int(children[0]))
    assert command.wait(_SECONDS) == 1, "the command says that there is no cluster"
    _tool("down")
    assert left(before, traces(PLACE)) == []


def _starting(temporary: Path) -> subprocess.Popen[bytes]:
    (PLACE.logs / "supervisor.log").unlink(missing_ok=True)  # of an earlier start
    return subprocess.Popen(
        _words("up"), cwd=REPOSITORY, env={**os.environ, "TMPDIR": str(temporary)}
    )


def _tool(name: str) -> None:
    subprocess.run(_words(name), cwd=REPOSITORY, check=True, timeout=_SECONDS)


def _words(name: str) -> list[str]:
    return [sys.executable, "-m", "tests.cluster", "--name", PLACE.name, name]


def _said(text: str) -> None:
    log = PLACE.logs / "supervisor.log"
    until(text, lambda: log.exists() and text in log.read_text(), _SECONDS)


def _kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
