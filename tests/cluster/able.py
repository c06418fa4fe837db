"""Whether a cluster can run on this machine, and what is missing if not."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.places import REPOSITORY

_GO = (1, 26)
_TRY = "mount -t tmpfs tmpfs /mnt && ip link add node0 type bridge"
"""What the first steps of a start need; it happens in namespaces that end with it."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What a start depends on."""

    kind: str
    """Like `Linux x86_64`."""

    system: str
    """Like `debian 12`."""

    root: bool
    go: tuple[int, ...]
    """Go's version; empty if there is none."""

    namespaces: str
    """Why namespaces of one's own cannot be had; empty if they can."""

    checkout: Path = REPOSITORY
    """Where this project lies; engines' pods read it there."""


def missing(machine: Machine) -> list[str]:
    """Return what keeps a cluster from running, one phrase each."""
    go = ".".join(map(str, machine.go))
    conditions = {
        f"Linux x86_64 is needed, this is {machine.kind}": machine.kind == "Linux x86_64",
        f"Debian 12 is needed, this is {machine.system}": machine.system == "debian 12",
        "root is needed": machine.root,
        f"Go >= 1.26 is needed, found: {go or 'none'}": machine.go >= _GO,
        f"no namespaces: {machine.namespaces}": not machine.namespaces,
        f"pods have a /tmp of their own, this is {machine.checkout}": (
            Path("/tmp") not in machine.checkout.parents  # noqa: S108 - nothing is written there
        ),
    }
    return [phrase for phrase, holds in conditions.items() if not holds]


def this_machine() -> Machine:
    """Return the facts of the machine that this runs on."""
    kind = f"{platform.system()} {platform.machine()}"
    root = os.geteuid() == 0
    return Machine(kind, _system(), root, _go(), _namespaces() if root else "")


def _system() -> str:
    try:
        release = platform.freedesktop_os_release()
    except OSError:
        return "unknown"
    return f"{release['ID']} {release.get('VERSION_ID', '')}".strip()


def _go() -> tuple[int, ...]:
    if shutil.which("go") is None:
        return ()
    told = _output("go", "env", "GOVERSION").stdout.strip().removeprefix("go")
    return tuple(int(part) for part in told.split(".") if part.isdigit())


def _namespaces() -> str:
    if shutil.which("unshare") is None:
        return "unshare is not here"
    words = ("unshare", "--net", "--mount", "--pid", "--fork", "--mount-proc", "sh", "-c", _TRY)
    tried = _output(*words)
    return tried.stderr.strip() if tried.returncode else ""


def _output(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, check=False, capture_output=True, text=True)
