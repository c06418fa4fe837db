"""What a cluster could leave behind on this machine, read where no cluster's namespace begins."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.cluster import namespace, packages, prepare
from tests.cluster.places import Place

_CHANGING = re.compile(r"/proc/sys/(fs/|kernel/random/|kernel/ns_last_pid)")
"""Counters that every machine changes by itself."""

_COUNTER = re.compile(r"packets \d+ bytes \d+")
_FOLDERS = "/ /dev/mqueue /dev/shm /etc /opt /run /var /var/cache /var/lib /var/log".split()
"""Where programs of a node keep what is theirs, when nothing tells them otherwise."""

Traces = dict[str, set[str]]


def traces(place: Place) -> Traces:
    """Return what is there now, by kind; of other clusters as little as can be told apart."""
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    rules = _within("nft", "list", "ruleset")
    return {
        "mount": {line.split(maxsplit=2)[2] for line in mounts},
        "link": _lines("ip", "-brief", "link"),
        "address": _lines("ip", "-brief", "address"),
        "route": _lines("ip", "route", "show", "table", "all") | _lines("ip", "rule"),
        "netfilter rule": set(_COUNTER.sub("", rules).splitlines()),
        "sysctl": set(_sysctls()),
        "cgroup": set(_cgroups(place)),
        "process": {f"{pid} {command(pid)}" for pid in namespace.marked(place)},
        "file": set(_files(place)),
    }


def left(before: Traces, after: Traces) -> list[str]:
    """Return what differs, one line each."""
    return [
        f"{kind} {'gone' if one in before[kind] else 'left'}: {one}"
        for kind in before
        for one in sorted(before[kind] ^ after[kind])
    ]


def command(pid: int) -> str:
    """Return a process' program, or nothing if it ended."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def _sysctls() -> Iterator[str]:
    for folder, _, names in os.walk("/proc/sys"):
        for name in names:
            path = Path(folder) / name
            if not _CHANGING.match(str(path)):
                try:
                    yield f"{path}={path.read_text(errors='replace').strip()}"
                except OSError:  # some can only be written
                    continue


def _cgroups(place: Place) -> Iterator[str]:
    for folder, below, _ in os.walk("/sys/fs/cgroup"):
        for name in list(below):
            if name.startswith("penstock-cluster-") and name != place.cgroup:
                below.remove(name)  # another cluster's
        yield folder


def _files(place: Place) -> Iterator[str]:
    for folder in _FOLDERS:
        if Path(folder).is_dir():
            yield from (f"{folder} has {path.name}" for path in Path(folder).iterdir())
    yield from (str(path) for path in (place.run, prepare.VOLUMES) if path.exists())


def _lines(*words: str) -> set[str]:
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    return {line.strip() for line in done.stdout.splitlines()}


def _within(*words: str) -> str:
    debian = packages.debian(print)
    done = subprocess.run(
        [*packages.within(debian), *words], check=True, capture_output=True, text=True
    )
    return done.stdout
