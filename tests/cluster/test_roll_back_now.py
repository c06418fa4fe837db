"""A person does not wait for the evidence: the commands of docs/how-to/roll-back-now.md."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.cluster.served import penstock
from tests.cluster.stage import NAME, PATIENT, Stage

pytestmark = [pytest.mark.cluster, pytest.mark.enable_socket]


@pytest.fixture
def stage(cluster: Any, namespace: str, tmp_path: Path) -> Stage:
    slow = PATIENT.model_copy(update={"replay_rps": 1.0})  # so that a person is in time
    made = Stage(namespace, tmp_path, policy=slow, cpu="400m")
    made.prepare()
    return made


def test_a_person_rolls_back_promotes_and_goes_back(stage: Stage) -> None:
    def rollout(*words: str) -> tuple[int, str]:
        return penstock("rollout", *words, NAME, "--namespace", stage.namespace)

    stage.deploy(1)
    with stage.users(10.0) as users, stage.driven():
        stage.begin(2)
        stage.until(lambda record: record.phase == "shadow")
        assert rollout("rollback")[0] == 0
        code, said = rollout("watch")
        assert (code, "m-v2 was rolled back" in said) == (4, True)
        assert stage.gone("m-v2")
        assert stage.target.observed(NAME) == {"m-v1": 100}

        stage.begin(3)
        stage.until(lambda record: record.phase == "shadow")
        assert rollout("promote")[0] == 0
        assert rollout("watch")[0] == 0
        assert stage.gone("m-v1")
        code, said = rollout("revert")
        assert (code, "m-v1 gets 100 %" in said) == (0, True), said
        assert stage.gone("m-v3")
        assert stage.target.observed(NAME) == {"m-v1": 100}
    assert users.failures == []
