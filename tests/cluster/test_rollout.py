"""Rollouts on real KServe: promoted or rolled back, and no user's request fails for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from serving.rollout import events
from tests.cluster.stage import NAME, POLICY, Stage

pytestmark = [pytest.mark.cluster, pytest.mark.alone, pytest.mark.enable_socket]


@pytest.fixture(params=["route", "llmisvc"])
def stage(request: Any, cluster: Any, namespace: str, tmp_path: Path) -> Stage:
    made = Stage(namespace, tmp_path, mode=request.param)
    made.prepare()
    return made


def test_a_good_candidate_is_promoted_without_a_failed_request(stage: Stage) -> None:
    stage.deploy(1)
    with stage.users() as users, stage.driven():
        stage.begin(2)
        record = stage.until(lambda r: r.over)
        assert record.phase == "promoted", (record.reason, stage.logs())
        assert stage.gone("m-v1")
    assert users.failures == []
    assert users.asked > 100
    text = events.certificate(POLICY.model_dump_json(), stage.record, stage.target.log.lines(NAME))
    assert events.verify(text)[-1].record.phase == "promoted"


def test_a_candidate_that_fails_users_is_rolled_back_and_nobody_else_is_harmed(
    stage: Stage,
) -> None:
    stage.deploy(1)
    with stage.users() as users, stage.driven():
        stage.begin(2, "--fault=live-errors=0.5")
        record = stage.until(lambda r: r.over)
        assert record.phase == "rolled_back", (record.reason, stage.logs())
        assert "error_rate is worse live" in record.reason
        assert stage.gone("m-v2")
    others = [failure for failure in users.failures if "injected on purpose" not in failure]
    assert others == []
    assert users.failures
