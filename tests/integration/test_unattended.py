"""A run that ends in the middle of a rollout: its candidate has users, and nobody looks."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from components.steps.conclusion import conclude
from components.steps.unattended import settle
from penstock.core.runs import StepRecord
from serving import lease
from serving.local import lifecycle
from tests.integration.rollout_stage import Stage, spec_of

pytestmark = pytest.mark.integration
RUN = "run-1"
_REGISTERED = {"model": "m", "version": 2, "run_id": "-", "source_uri": "file:///fast-two"}


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    made = Stage(tmp_path)
    made.up()
    yield made
    lifecycle.down(made.settings)


def _env(stage: Stage) -> dict[str, str]:
    return {
        **os.environ,  # noqa: TID251 - the edge of the test
        "PENSTOCK_HOME": str(stage.settings.home),
        "PENSTOCK_GATEWAY_PORT": str(stage.settings.gateway_port),
        "PENSTOCK_RUN_ID": RUN,
    }


def _killed(stage: Stage, *steps: str) -> None:
    """Write down what a run leaves that was killed in the last of these steps."""
    folder = stage.settings.home / "runs" / RUN / "steps"
    folder.mkdir(parents=True)
    for number, name in enumerate(steps):
        record = StepRecord(
            step=name,
            outcome="running" if name == steps[-1] else "done",
            started_at=time.time() + number,
            detail=_REGISTERED if name == "register" else {},
        )
        (folder / f"{name}.json").write_text(record.model_dump_json())


def test_a_candidate_with_users_and_nobody_who_looks_is_rolled_back(stage: Stage) -> None:
    spec, env = spec_of().to_json(), _env(stage)
    _killed(stage, "register", "deploy", "rollout")
    with stage.users().asking() as users:
        stage.begin()
        stage.drive(until=lambda made: made.record.weight == 50)
        lease.release(stage.cluster, "m", "test")  # killed, it would have run out
        assert settle(env, spec)
        assert stage.routed() == {"m-v1": 100}
    assert users.failed == 0
    run = conclude(env, spec, "FAILED")
    assert run.headline.decision == "failed"
    assert "m-v2 was rolled back: its run ended before it was decided" in run.headline.reason
    summary = json.loads((stage.settings.home / "runs" / RUN / "summary.json").read_text())
    assert summary["result"]["rollout"]["outcome"] == "rolled_back"
    assert not settle(env, spec)  # it is over


def test_a_candidate_that_a_controller_looks_after_is_left_to_it(stage: Stage) -> None:
    _killed(stage, "register", "deploy")
    stage.begin()
    lease.acquire(stage.cluster, "m", "controller-1", time.time())
    assert not settle(_env(stage), spec_of().to_json())
    lease.release(stage.cluster, "m", "controller-1")
    with stage.users().asking():
        assert stage.drive().phase == "promoted"


def test_another_run_s_candidate_is_none_of_its_business(stage: Stage) -> None:
    _killed(stage, "pull")
    stage.begin()
    assert not settle(_env(stage), spec_of().to_json())
    with stage.users().asking():
        assert stage.drive().phase == "promoted"
