"""The pipeline that builds engines, through KFP's local runner, with the fake programs."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from components.steps.engine_work import EXAMPLES, PYTHON
from components.trtllm.cache import EngineCache
from pipelines.steps import ENGINE_STEPS
from serving.local.processes import born
from tests.fakes import trtllm, trtllm_parent
from tests.fakes.trtllm_bench import Bench

pytestmark = pytest.mark.integration


class Node:
    """A machine with the fake programs first on PATH, and a home."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.home = root / "home"
        self.programs = root / "programs"
        found = trtllm.install(self.programs)
        before = dict(os.environ)  # noqa: TID251 - the edge of the test
        self.env = before | {
            "PATH": f"{self.programs / 'bin'}:{before['PATH']}",
            "FAKE_GPUS": found["FAKE_GPUS"],
            "PENSTOCK_HOME": str(self.home),
            PYTHON: sys.executable,
            EXAMPLES: str(self.programs / "examples"),
        }
        source = trtllm_parent.make(root / "parent")
        rows = [Bench.row(number) for number in range(200)]
        evaluate = root / "evaluate.jsonl"
        evaluate.write_text("".join(json.dumps(row) + "\n" for row in rows))
        right = {row["messages"][0]["content"]: row["answer"] for row in rows}
        answers = root / "answers.json"
        answers.write_text(json.dumps({"parent": right, "candidate": right}))
        self.env["FAKE_ANSWERS"] = str(answers)
        self.spec = json.dumps(
            {
                "name": "tiny",
                "source": f"file://{source}",
                "runtime": "tensorrt-llm",
                "hardware": {"accelerator": "nvidia-h100-80gb", "count": 2},
                "engine": trtllm_parent.FITS | {"strategy": "engine"},
                "data": {"evaluate": str(evaluate)},
            }
        )

    @property
    def ran(self) -> Counter[str]:
        path = self.programs / "ran"
        lines = path.read_text().splitlines() if path.exists() else []
        return Counter(line.split()[0] for line in lines)

    def start(self, run_id: str, **env: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "pipelines.local"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**self.env, "PENSTOCK_RUN_ID": run_id, **env},
            start_new_session=True,
        )
        assert process.stdin is not None
        run_dir = str(self.home / "runs" / run_id)
        request = {"pipeline": "engine", "run_dir": run_dir, "spec": self.spec}
        process.stdin.write(json.dumps(request))
        process.stdin.close()
        process.stdin = None
        return process

    def run(self, run_id: str, **env: str) -> tuple[int, dict[str, Any]]:
        """Run to the end; returns the exit code and the step's record."""
        process = self.start(run_id, **env)
        out, _ = process.communicate(timeout=100)
        path = self.home / "runs" / run_id / "steps/build_engine.json"
        assert path.exists(), out
        return process.returncode, json.loads(path.read_text())

    def kill_while(self, program: str, process: subprocess.Popen[str]) -> None:
        """Kill everything that the run started, once a program runs."""
        never, until = threading.Event(), time.monotonic() + 60
        while not self.ran[program]:
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < until, f"{program} never began"
            never.wait(0.05)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=20)


def _until(done: Callable[[], bool]) -> None:
    never, until = threading.Event(), time.monotonic() + 20
    while not done():
        assert time.monotonic() < until, "it did not happen"
        never.wait(0.05)


def test_a_killed_build_goes_on_is_found_again_and_refused_elsewhere(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.kill_while("trtllm-build", node.start("killed", FAKE_TRTLLM="hang:trtllm-build"))
    cache = EngineCache(node.home / "engines")
    assert cache.digests() == []
    assert node.ran == {"quantize": 1, "trtllm-build": 1}

    code, record = node.run("resumed")
    assert (code, record["outcome"]) == (0, "done")
    assert [stage["output"] for stage in record["detail"]["stages"]] == ["engine"]
    assert node.ran == {"quantize": 1, "trtllm-build": 2, "trtllm-serve": 2}
    (digest,) = cache.digests()
    cache.entry(digest).verify()
    (artifact,) = (node.home / "runs/resumed/artifacts").rglob("judge-engine/servable")
    assert json.loads(artifact.read_text())["key"] == record["detail"]["key"] == str(digest)
    assert cache.entry(digest).servable
    steps = json.loads((node.home / "runs/resumed/summary.json").read_text())["steps"]
    assert [each["name"] for each in steps] == list(ENGINE_STEPS)

    code, record = node.run("again")
    assert (code, record["outcome"], record["detail"]["reused"]) == (0, "reused", True)
    assert node.ran == {"quantize": 1, "trtllm-build": 2, "trtllm-serve": 2}

    code, record = node.run("elsewhere", FAKE_GPUS="NVIDIA L4, 8.9, 580.65.06")
    assert (code != 0, record["failure"]["kind"]) == (True, "EngineRefused")
    assert "here is NVIDIA L4 (SM89)" in record["failure"]["message"]
    assert node.ran == {"quantize": 1, "trtllm-build": 2, "trtllm-serve": 2}
    page = (node.home / "runs/elsewhere/report.html").read_text()
    assert "here is NVIDIA L4 (SM89)" in page


def test_a_killed_judge_leaves_no_server_and_no_verdict(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.kill_while("trtllm-serve", node.start("killed", FAKE_TRTLLM="hang:trtllm-serve"))
    (digest,) = EngineCache(node.home / "engines").digests()
    assert EngineCache(node.home / "engines").entry(digest).verdict is None
    (pid,) = [
        int(w) for w in re.findall(r"trtllm-serve (\d+)", (node.programs / "ran").read_text())
    ]
    _until(lambda: born(pid) is None)
    code, _ = node.run("again")
    assert code == 0
    assert EngineCache(node.home / "engines").entry(digest).servable
