"""What KServe's own way of taking a version away costs: `serving.kserve.io/stop`.

Penstock does not use it: a version that has to go loses its share, then its place in the route,
and is deleted then. Whoever stops one by hand, or by another tool, meets what is counted here.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.cluster.split import CONTEXTS, PATIENT, serve, take, until_ready
from tests.cluster.stage import NAME, Stage
from tests.cluster.waiting import pause, until

pytestmark = [pytest.mark.cluster, pytest.mark.wider, pytest.mark.alone, pytest.mark.enable_socket]

OURS, THEIRS = "/v1/models", "/health"
"""A path that our route leads, and one that KServe's own routes of the group lead."""

RPS = 20.0
"""Of each."""

WATCHED_S = 10.0
_AFTERWARDS = "without a share"


@pytest.fixture
def stage(cluster: Any, namespace: str, tmp_path: Path) -> Stage:
    made = Stage(namespace, tmp_path, mode="llmisvc", policy=PATIENT, cpu="400m")
    made.prepare()
    return made


def test_a_version_without_a_share_can_be_stopped_and_users_on_our_route_see_nothing(
    stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    for version in CONTEXTS:
        serve(stage, version)
    with _asking(stage) as asked:
        _stopped(stage, asked, _AFTERWARDS)
        _started_again(stage)
        take(stage, {"m-v1": 50, "m-v2": 50})
        _stopped(stage, asked, "with half of the users")
    with capsys.disabled():
        for (moment, path), found in asked.items():
            print(f"\nstopped {moment}, {path}: {dict(found)}")
    ours = asked[_AFTERWARDS, OURS]
    assert set(ours) == {"answered"}, ours
    assert ours["answered"] >= RPS * WATCHED_S / 2


class _Asked(dict[tuple[str, str], Counter[str]]):
    """When and at which path → what users got there, by how often."""

    now = "before"

    def add(self, path: str, got: str) -> None:
        """Count an answer."""
        self.setdefault((self.now, path), Counter())[got] += 1


@contextmanager
def _asking(stage: Stage) -> Iterator[_Asked]:
    """Have users ask both paths at a steady rate until the block ends."""
    asked, over, door = _Asked(), threading.Event(), stage.target.door(NAME)

    async def one(http: aiohttp.ClientSession, path: str) -> None:
        try:
            async with http.get(f"{door.url}{path}", headers=door.headers) as response:
                await response.read()
                got = "answered" if response.status == 200 else f"HTTP {response.status}"
        except (aiohttp.ClientError, TimeoutError) as error:
            got = type(error).__name__
        asked.add(path, got)

    async def all_of_them() -> None:
        waits = aiohttp.ClientTimeout(total=10)
        async with aiohttp.ClientSession(timeout=waits) as http, asyncio.TaskGroup() as group:
            while not over.is_set():
                for path in (OURS, THEIRS):
                    group.create_task(one(http, path))
                await asyncio.sleep(1 / RPS)

    thread = threading.Thread(target=lambda: asyncio.run(all_of_them()), daemon=True)
    thread.start()
    try:
        yield asked
    finally:
        over.set()
        thread.join(30)


def _stopped(stage: Stage, asked: _Asked, moment: str) -> None:
    """Stop version 2, and watch."""
    asked.now = moment
    _annotate(stage, "true")
    until("its pods are gone", lambda: not stage.target.pods("m-v2"), 120)
    pause(WATCHED_S)
    asked.now = "between"


def _started_again(stage: Stage) -> None:
    _annotate(stage, None)
    until("it has a pod again", lambda: stage.target.pods("m-v2"), 120)
    until_ready(stage, "m-v2")


def _annotate(stage: Stage, value: str | None) -> None:
    patch = {"metadata": {"annotations": {"serving.kserve.io/stop": value}}}
    subprocess.run(
        ["kubectl", "-n", stage.namespace, "patch", "llminferenceservice", "m-v2",
         "--type=merge", f"--patch={json.dumps(patch)}"],
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip
