"""Users' requests are read from Prometheus: the decisions are those of reading pods themselves."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cluster.conftest import Running
from tests.cluster.stage import PATIENT, Stage

pytestmark = [pytest.mark.cluster, pytest.mark.enable_socket]


@pytest.fixture
def stage(cluster: Running, namespace: str, tmp_path: Path) -> Stage:
    if not cluster.prometheus:
        pytest.skip("no Prometheus: PENSTOCK_TEST_PROMETHEUS names one that scrapes the pods")
    more = {"prometheus": cluster.prometheus}
    made = Stage(namespace, tmp_path, policy=PATIENT, more=more, cpu="400m")
    made.prepare()
    return made


def test_good_and_bad_candidates_are_told_apart(stage: Stage) -> None:
    stage.deploy(1)
    with stage.users(10.0) as users, stage.driven():
        stage.begin(2)
        record = stage.until(lambda r: r.over, seconds=600)
        assert record.phase == "promoted", (record.reason, stage.logs())
        assert record.evidence.requests > 0
        assert stage.gone("m-v1")
        assert users.failures == []
        stage.begin(3, "--fault=live-errors=0.5")
        record = stage.until(lambda r: r.over and r.candidate == "m-v3", seconds=600)
        assert record.phase == "rolled_back", (record.reason, stage.logs())
        assert "error_rate is worse live" in record.reason
    assert [each for each in users.failures if "injected on purpose" not in each] == []
