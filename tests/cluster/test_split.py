"""How exactly users are split between two versions, and how soon after it was asked for."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.split import CONTEXTS, LATEST_S, PATIENT, ask, serve, take
from tests.cluster.stage import NAME, Stage

pytestmark = [pytest.mark.cluster, pytest.mark.alone, pytest.mark.enable_socket]

ASKED = 5000
WITHIN = 0.02


@pytest.fixture(params=["route", "llmisvc"])
def stage(request: Any, cluster: Any, namespace: str, tmp_path: Path) -> Stage:
    made = Stage(namespace, tmp_path, mode=request.param, policy=PATIENT, cpu="400m")
    made.prepare()
    return made


def test_users_are_split_as_asked(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    for version in CONTEXTS:
        serve(stage, version)
    door = stage.target.door(NAME)
    took = take(stage, {"m-v1": 75, "m-v2": 25})
    found = asyncio.run(ask(door, ASKED))
    with capsys.disabled():
        print(
            f"\n{stage.mode}: first request of the new split after {took['first']:.2f} s, "
            f"observed after {took['observed']:.2f} s; of {ASKED} requests {dict(found)}"
        )
    assert found.total() == ASKED == found["m-v1"] + found["m-v2"], "nobody else, and no error"
    assert found["m-v2"] / ASKED == pytest.approx(0.25, abs=WITHIN)
    assert max(took.values()) < LATEST_S
