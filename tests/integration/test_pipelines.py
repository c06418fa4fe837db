"""Every pipeline to its end, posted by kfp's own client: what is compiled is what is executed."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from penstock.cli.users import Users
from penstock.core.settings import Settings
from pipelines.submission.package import compiled
from serving.local import lifecycle
from tests.fakes.kfp import kfp_server
from tests.fakes.kfp.execution import Executor
from tests.fakes.tiny_model import make_tiny_model
from tests.integration.rollout_stage import POLICY

pytestmark = pytest.mark.integration
ENV = dict(os.environ)  # noqa: TID251 - the edge of the test
_ITEMS = 150


def _row(number: int) -> dict[str, Any]:
    messages = [{"role": "user", "content": f"what is {number}?"}]
    return {"id": str(number), "skill": "s", "messages": messages, "answer": "x"}


class Platform:
    """A server that executes what it is sent, beside a local cluster; and kfp's client for it."""

    def __init__(self, root: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as unused:
            port = int(unused.getsockname()[1])
        self.root, self.url = root, ""
        self.settings = Settings(home=root / "home", gateway_port=port)
        self.env = {
            **ENV,
            "PENSTOCK_HOME": str(self.settings.home),
            "PENSTOCK_GATEWAY_PORT": str(port),
        }
        for name, first in (("evaluate", 0), ("train", _ITEMS)):
            rows = (_row(number) for number in range(first, first + _ITEMS))
            (root / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def local(self, verb: str) -> None:
        words = [sys.executable, "-m", "penstock.cli", "local", verb]
        subprocess.run(words, env=self.env, check=True, stdout=subprocess.DEVNULL)

    def spec(self) -> str:
        return json.dumps(
            {
                "name": "m",
                "source": (self.root / "model").as_uri(),
                "data": {
                    "train": str(self.root / "train.jsonl"),
                    "evaluate": str(self.root / "evaluate.jsonl"),
                },
                "training": {"method": "full", "steps": 1, "batch_rows": 2},
                "evaluation": {"max_new_tokens": 2, "max_quality_loss": 0.9},
                "rollout": POLICY.model_dump(),
            }
        )

    def run(self, name: str, **arguments: Any) -> dict[str, Any]:
        """Post a compiled pipeline, wait, and return its summary, which says how it ended."""
        path = self.root / f"{name}.yaml"
        path.write_text(compiled(name).text)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns of servers older than this
            import kfp

            plain = kfp.Client(host=self.url)
        given = {"spec": self.spec(), **arguments}
        made = plain.create_run_from_pipeline_package(str(path), arguments=given)
        ended = plain.wait_for_run_completion(made.run_id, timeout=300, sleep_duration=1)
        path = self.settings.home / "runs" / made.run_id / "summary.json"
        found: dict[str, Any] = json.loads(path.read_text())
        return {**found, "state": ended.state}

    def users(self) -> Users:
        asked = [[{"role": "user", "content": f"what is {n}?"}] for n in range(500)]
        return Users(lifecycle.url(self.settings), "m", asked, rps=20.0, seed=1)


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    made = Platform(tmp_path)
    make_tiny_model(tmp_path / "model")
    made.local("up")
    with kfp_server() as double:
        executor = Executor(double, tmp_path, made.env, {})
        made.url = double.url
        try:
            yield made
        finally:
            executor.stop()
            made.local("down")


def test_served_trained_evaluated_and_back(platform: Platform) -> None:
    first = platform.run("lifecycle")
    assert (first["state"], first["headline"]["decision"]) == ("SUCCEEDED", "first"), first
    with platform.users().asking() as users:
        second = platform.run("retrain", because="a test")
        assert (second["state"], second["headline"]["decision"]) == ("SUCCEEDED", "promoted")
        again = platform.run("retrain")
        assert (again["state"], again["headline"]["decision"]) == ("SUCCEEDED", "no change")
        judged = platform.run("evaluate", version="champion")
        assert judged["state"] == "SUCCEEDED", judged
        assert judged["result"]["evaluate"]["exact_match"]["n"] == _ITEMS
        assert lifecycle.observed(platform.settings, "m") == {"m-v2": 100}
        back = platform.run("rollback", reason="the second one is not liked")
    assert (back["state"], back["headline"]["decision"]) == ("SUCCEEDED", "reverted"), back
    assert "the second one is not liked" in back["headline"]["reason"]
    assert lifecycle.observed(platform.settings, "m") == {"m-v1": 100}
    assert users.failed == 0


def test_nothing_to_go_back_to_is_said_and_nothing_changes(platform: Platform) -> None:
    back = platform.run("rollback")
    assert (back["state"], back["headline"]["decision"]) == ("FAILED", "failed"), back
    assert "rollout: " in back["headline"]["reason"]
    assert lifecycle.observed(platform.settings, "m") == {}
