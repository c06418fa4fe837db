"""Network, mount and process namespaces of a cluster's own: when their first process ends, the
kernel ends every other and takes mounts, interfaces and netfilter rules with them.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.cluster.places import MARK, REPOSITORY, Place
from tests.cluster.waiting import pause

# As the first process `sh` reaps what other processes leave behind, and ends with its own child.
_FIRST = ("sh", "-c", '"$@" & wait $!', "sh")


def start(place: Place) -> subprocess.Popen[bytes]:
    """Start the supervisor in new namespaces; it writes to its log."""
    place.logs.mkdir(parents=True, exist_ok=True)
    with (place.logs / "supervisor.log").open("wb") as log:
        return subprocess.Popen(
            ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc",
             *_FIRST, sys.executable, "-u", "-m", "tests.cluster.supervisor", place.name],
            cwd=REPOSITORY,
            env={**os.environ, MARK: place.name},
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip


def entering(first: int, command: Sequence[str]) -> list[str]:
    """Return the command that runs a command in the namespaces of a process, where we are."""
    return [
        "nsenter", f"--target={first}", "--net", "--mount", "--pid",
        "env", f"--chdir={Path.cwd()}", *command,
    ]  # fmt: skip


def inside() -> bool:
    """Return whether we run in some cluster's namespaces."""
    return f"{MARK}=".encode() in _read(1, "environ")


def first_process(place: Place) -> int | None:
    """Return the process that is number 1 in the namespaces, or None: nothing runs."""
    for pid in marked(place):
        if _status(pid).get("NSpid", "").split()[-1:] == ["1"]:
            return pid
    return None


def processes(first: int) -> dict[int, int]:
    """Return every process in the namespaces by its number within: the number outside."""
    own = _link(first)
    found = {}
    for pid in _pids():
        numbers = _status(pid).get("NSpid", "").split()
        if len(numbers) > 1 and _link(pid) == own:
            found[int(numbers[1])] = pid
    return found


def end(place: Place) -> None:
    """End every process of a cluster and wait until none is left."""
    for _ in range(200):
        left = list(marked(place))
        if not left:
            return
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        pause(0.05)
    raise TimeoutError(f"processes do not end: {left}")


def marked(place: Place) -> Iterator[int]:
    """Yield every process that carries a cluster's mark, us aside."""
    mark = f"{MARK}={place.name}".encode()
    for pid in _pids():
        if pid != os.getpid() and mark in _read(pid, "environ").split(b"\0"):
            yield pid


def _pids() -> list[int]:
    return [int(folder.name) for folder in Path("/proc").iterdir() if folder.name.isdigit()]


def _status(pid: int) -> dict[str, str]:
    lines = _read(pid, "status").decode(errors="replace").splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def _read(pid: int, file: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{file}").read_bytes()
    except OSError:  # it ended meanwhile
        return b""


def _link(pid: int) -> str:
    try:
        return str(Path(f"/proc/{pid}/ns/pid").readlink())
    except OSError:
        return ""
