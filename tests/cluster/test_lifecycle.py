"""`penstock run` against a cluster, as a person types it: from the Hub to pods, and to the next
version that takes over, or does not.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from serving import controller as acting
from tests.cluster.places import REPOSITORY
from tests.cluster.served import account, penstock
from tests.cluster.stage import NAME, PATIENT, Stage
from tests.cluster.waiting import until
from tests.fakes.tiny_model import make_tiny_model

pytestmark = [pytest.mark.cluster, pytest.mark.enable_socket]

_ITEMS = 150
_RUN_S = 600.0


class Person:
    """Somebody with a home and a `model.yaml`."""

    def __init__(self, stage: Stage, folder: Path, env: dict[str, str]) -> None:
        self.stage, self.folder = stage, folder
        self.env = {
            **os.environ,
            "PENSTOCK_HOME": str(folder / "home"),
            **env,
            "PENSTOCK_NAMESPACE": stage.namespace,
            "PENSTOCK_MODE": stage.mode,
        }
        rows = [
            {
                "id": str(number),
                "skill": "s",
                "messages": [{"role": "user", "content": f"what is {number}?"}],
                "answer": "x",
            }
            for number in range(_ITEMS)
        ]
        (folder / "evaluate.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    @contextmanager
    def running(self, source: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
        """Have `penstock run` go on; it is ended if the block ends first."""
        spec = self.stage.spec(
            source=source,
            data={"evaluate": "evaluate.jsonl"},
            evaluation={"max_new_tokens": 4, "max_quality_loss": 0.9},
            runtime_args=list(arguments),
        )
        path = self.folder / "model.yaml"
        path.write_text(spec.to_json())
        process = subprocess.Popen(
            [sys.executable, "-m", "penstock.cli", "run", str(path)],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=self.env,
        )  # fmt: skip
        try:
            yield process
        finally:
            process.terminate()
            process.wait(60)

    def run(self, source: str, *arguments: str) -> tuple[int, str]:
        """Run it to its end; return the exit code and what it said."""
        with self.running(source, *arguments) as process:
            return self.end(process)

    def end(self, process: subprocess.Popen[str]) -> tuple[int, str]:
        """Wait for the end; return the exit code and what it said."""
        said, _ = process.communicate(timeout=_RUN_S)
        print(said)
        return process.returncode, said

    def call(self, *words: str) -> tuple[int, str]:
        """Run another command."""
        return penstock(*words, **self.env)


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[str]:
    """A mirror of the Hub with three checkpoints of different content."""
    root = tmp_path / "hub"
    for number in (1, 2, 3):
        model = make_tiny_model(root / f"acme/v{number}")
        (model / "README.md").write_text(f"version {number}")
    command = [sys.executable, "-m", "penstock.cli", "hub", "serve", str(root), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        yield server.stdout.readline().rpartition(" at ")[2].strip()
        server.terminate()


@pytest.fixture
def person(cluster: Any, namespace: str, tmp_path: Path, hub: str) -> Iterator[Person]:
    """Somebody who has the rights that deploy/runner grants, and no others."""
    stage = Stage(namespace, tmp_path, policy=PATIENT, cpu="400m")
    stage.prepare()
    role = yaml.safe_load((REPOSITORY / "deploy/runner/role.yaml").read_text())
    with account(stage, "runner", role["rules"]) as kubeconfig:
        yield Person(stage, tmp_path, {"HF_ENDPOINT": hub, "KUBECONFIG": kubeconfig})


def test_every_version_comes_by_penstock_run(person: Person) -> None:
    stage = person.stage
    code, said = person.run("hf://acme/v1")
    assert code == 0, said
    with stage.users(10.0) as users:
        with person.running("hf://acme/v2") as process:
            until("the ramp", lambda: process.poll() is not None or _phase(stage) == "ramp", _RUN_S)
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
