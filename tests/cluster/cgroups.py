"""The cgroups below which a cluster's pods have theirs: the one thing no namespace takes along."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from tests.cluster.places import Place
from tests.cluster.waiting import until

_ROOT = Path("/sys/fs/cgroup")


def make(place: Place) -> None:
    """Make the cluster's cgroup in every hierarchy.

    All pods together may have as much of the processors as the kubelet gives them on a node of its
    own: 1024 shares each. By default it would be as much as one process beside them.
    """
    for top in _tops(place):
        top.mkdir(exist_ok=True)
        shares = top / "cpu.shares"  # of the first version of cgroups
        if shares.exists():
            shares.write_text(str(1024 * (os.cpu_count() or 1)))


def remove(place: Place) -> None:
    """Remove the cluster's cgroups; one is busy until the kernel has buried its last process."""
    for top in _tops(place):
        until(f"{top} is empty", lambda top=top: _removed(top), 10)  # type: ignore[misc]


def _removed(top: Path) -> bool:
    try:
        for folder in sorted((top, *top.rglob("*/")), reverse=True):
            folder.rmdir()
    except FileNotFoundError:
        return not top.exists()
    except OSError:
        return False
    return True


def _tops(place: Place) -> Iterator[Path]:
    second_version = (_ROOT / "cgroup.controllers").exists()
    hierarchies = [_ROOT] if second_version else [h for h in _ROOT.iterdir() if h.is_dir()]
    for hierarchy in hierarchies:
        if not hierarchy.is_symlink():
            yield hierarchy / place.cgroup
