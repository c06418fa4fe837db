"""`penstock run` against a cluster, as a person types it: from the Hub to pods, and to the next
version that takes over, or does not.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from serving import controller as acting
from tests.cluster.person import RUN_S, Person, hub
from tests.cluster.places import REPOSITORY
from tests.cluster.served import account
from tests.cluster.stage import NAME, PATIENT, Stage
from tests.cluster.waiting import until

pytestmark = [pytest.mark.cluster, pytest.mark.enable_socket]


@pytest.fixture
def person(cluster: Any, namespace: str, tmp_path: Path) -> Iterator[Person]:
    """Somebody who has the rights that deploy/runner grants, and no others."""
    stage = Stage(namespace, tmp_path, policy=PATIENT, cpu="400m")
    stage.prepare()
    role = yaml.safe_load((REPOSITORY / "deploy/runner/role.yaml").read_text())
    with hub(tmp_path / "hub") as url, account(stage, "runner", role["rules"]) as kubeconfig:
        yield Person(stage, tmp_path, {"HF_ENDPOINT": url, "KUBECONFIG": kubeconfig})


def test_every_version_comes_by_penstock_run(person: Person) -> None:
    stage = person.stage
    code, said = person.run("hf://acme/v1")
    assert code == 0, said
    with stage.users(10.0) as users:
        with person.running("hf://acme/v2") as process:
            until("the ramp", lambda: process.poll() is not None or _phase(stage) == "ramp", RUN_S)
            shown = person.call("status")[1]
            person.call("rollout", "status", NAME)
            code, said = person.end(process)
        assert code == 0, said
        assert users.failures == []
        assert "%, m-v2 against m-v1: " in shown
        assert stage.gone("m-v1")
        person.call("status")
        code, said = person.run("hf://acme/v3", "--fault=live-errors=0.5")
        assert code == 4, said
        assert "rollout: rolled back, m-v3 against m-v2: " in person.call("status")[1]
    assert [each for each in users.failures if "injected on purpose" not in each] == []


def _phase(stage: Stage) -> str:
    obj = stage.target.cluster.get("HTTPRoute", NAME)
    return obj["metadata"].get("annotations", {}).get(acting.PHASE, "") if obj else ""
