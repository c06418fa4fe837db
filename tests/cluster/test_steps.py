"""The lifecycle's tasks as real pods: what is compiled is what runs, and pods may be lost."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.compile import PIPELINES, compile_text
from pipelines.tasks import CLAIM, HOME, SETTINGS
from tests.cluster.launcher import Launcher
from tests.cluster.person import write_items
from tests.cluster.places import REPOSITORY
from tests.cluster.served import account, kubectl
from tests.cluster.stage import NAME, PATIENT, Stage
from tests.cluster.stage import volume as volume_of
from tests.cluster.storage_world import hub
from tests.cluster.waiting import until
from tests.fakes.tiny_model import make_tiny_model

pytestmark = [pytest.mark.cluster, pytest.mark.wider, pytest.mark.alone, pytest.mark.enable_socket]

_AT_WORK = ("evaluate", "deploy", "rollout")
"""Tasks that are seen to run. The others may be over before, and lose their pod as it starts."""


@pytest.fixture
def stage(cluster: Any, namespace: str, tmp_path: Path) -> Stage:
    """A namespace in which pipelines can run: a claim, settings, an account."""
    home = tmp_path / "claimed"
    for folder in (home, home / "minio", home / "launched", home / "published", home / "data"):
        folder.mkdir()
        folder.chmod(0o777)
    write_items(home / "data/evaluate.jsonl")
    told = {"storage": f"pvc://{CLAIM}/published={HOME}"}
    made = Stage(namespace, tmp_path, policy=PATIENT, cpu="400m", more=told)
    made.prepare()
    kubectl(made, "apply", "-f", "-", given=volume_of(namespace, home, CLAIM))
    return made


@pytest.fixture
def mirror(stage: Stage, tmp_path: Path) -> Iterator[str]:
    for number in (1, 2, 3):
        model = make_tiny_model(tmp_path / f"hub/acme/v{number}")
        (model / "README.md").write_text(f"version {number}")
    with hub(tmp_path / "hub") as url:
        data = {"HF_ENDPOINT": url, "OMP_NUM_THREADS": "1"}
        settings = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": SETTINGS}}
        kubectl(stage, "apply", "-f", "-", given=[{**settings, "data": data}])
        yield url


def _spec(stage: Stage, source: str) -> str:
    return stage.spec(
        source=source,
        data={"evaluate": f"{HOME}/data/evaluate.jsonl"},
        evaluation={"max_new_tokens": 4, "max_quality_loss": 0.9},
    ).to_json()


def test_the_compiled_tasks_bring_a_version_to_users_and_its_successor_too(
    stage: Stage, mirror: str, tmp_path: Path
) -> None:
    text, killed = compile_text(PIPELINES["lifecycle"]), list[str]()
    undone = compile_text(PIPELINES["rollback"])

    def kill(task: str, pod: str, phase: str) -> None:
        if task not in killed and (phase == "Running" or task not in _AT_WORK):
            kubectl(stage, "delete", "pod", pod, "--grace-period=0", "--force")
            killed.append(task)

    def kill_always(task: str, pod: str, phase: str) -> None:
        if task != "rollout" or phase != "Running":
            return
        until("users to be on the candidate", lambda: stage.target.observed(NAME).get("m-v3"), 240)
        kubectl(stage, "delete", "pod", pod, "--grace-period=0", "--force")

    role = yaml.safe_load((REPOSITORY / "deploy/runner/role.yaml").read_text())
    with account(stage, "runner", role["rules"]):
        first = Launcher(stage, tmp_path / "claimed", text, "runner")
        assert first.run(spec=_spec(stage, "hf://acme/v1")) == "SUCCEEDED"
        assert stage.target.observed(NAME) == {"m-v1": 100}
        with stage.users(10.0) as users:
            second = Launcher(stage, tmp_path / "claimed", text, "runner", on_pod=kill)
            assert second.run(spec=_spec(stage, "hf://acme/v2")) == "SUCCEEDED"
            assert stage.target.observed(NAME) == {"m-v2": 100}
            assert stage.gone("m-v1")
            third = Launcher(stage, tmp_path / "claimed", text, "runner", on_pod=kill_always)
            assert third.run(spec=_spec(stage, "hf://acme/v3")) == "FAILED"
            assert third.ended["rollout"].state == "FAILED"
            assert third.ended["conclude"].state == "SUCCEEDED"
            assert stage.target.observed(NAME) == {"m-v2": 100}, "nobody looked after the third"
            back = Launcher(stage, tmp_path / "claimed", undone, "runner")
            assert back.run(spec=_spec(stage, "hf://acme/v2"), reason="a test") == "SUCCEEDED"
            assert stage.target.observed(NAME) == {"m-v1": 100}
        assert users.failures == []
    ended = json.loads((tmp_path / "claimed/runs" / third.run_id / "summary.json").read_text())
    assert "m-v3 was rolled back: its run ended before it was" in ended["headline"]["reason"]
    lost = [task for task, each in second.ended.items() if each.lost]
    assert sorted(lost) == sorted(second.ended), "every task lost a pod"
    record = tmp_path / "claimed/runs" / second.run_id
    report = (record / "report.html").read_text()
    assert "promoted" in report
    assert os.listdir(record / "steps")  # noqa: PTH208 - names are enough
