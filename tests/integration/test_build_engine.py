"""The pipeline that builds engines, through KFP's local runner, with the fake programs."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from components.steps.build_engine import EXAMPLES, PYTHON
from components.trtllm.cache import EngineCache
from tests.fakes import trtllm, trtllm_parent

pytestmark = pytest.mark.integration

_RUN = """
import sys, tempfile
from kfp import local
from pipelines.engine import engine
local.init(
    runner=local.SubprocessRunner(use_venv=False),
    pipeline_root=sys.argv[1],
    workspace_root=tempfile.mkdtemp(dir=sys.argv[2]),
    raise_on_error=True,
)
engine(spec=sys.stdin.read())
"""
"""What pipelines.local does for the lifecycle."""


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
        self.spec = json.dumps(
            {
                "name": "tiny",
                "source": f"file://{source}",
                "runtime": "tensorrt-llm",
                "hardware": {"accelerator": "nvidia-h100-80gb", "count": 2},
                "engine": trtllm_parent.FITS | {"strategy": "engine"},
            }
        )

    @property
    def ran(self) -> Counter[str]:
        path = self.programs / "ran"
        lines = path.read_text().splitlines() if path.exists() else []
        return Counter(line.split()[0] for line in lines)

    def start(self, run_id: str, **env: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", _RUN, str(self.root / "artifacts" / run_id), str(self.root)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**self.env, "PENSTOCK_RUN_ID": run_id, **env},
            start_new_session=True,
        )
        assert process.stdin is not None
        process.stdin.write(self.spec)
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


def test_a_killed_build_goes_on_is_found_again_and_refused_elsewhere(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.kill_while("trtllm-build", node.start("killed", FAKE_TRTLLM="hang:trtllm-build"))
    cache = EngineCache(node.home / "engines")
    assert cache.digests() == []
    assert node.ran == {"quantize": 1, "trtllm-build": 1}

    code, record = node.run("resumed")
    assert (code, record["outcome"]) == (0, "done")
    assert [stage["output"] for stage in record["detail"]["stages"]] == ["engine"]
    assert node.ran == {"quantize": 1, "trtllm-build": 2}
    (digest,) = cache.digests()
    cache.entry(digest).verify()
    (artifact,) = (tmp_path / "artifacts/resumed").rglob("build-engine/engine")
    assert json.loads(artifact.read_text())["key"] == record["detail"]["key"] == str(digest)
    steps = json.loads((node.home / "runs/resumed/summary.json").read_text())["steps"]
    names = ["resolve", "pull", "scan", "plan_engine", "build_engine"]
    assert [each["name"] for each in steps] == names

    shutil.rmtree(tmp_path / "artifacts")
    code, record = node.run("again")
    assert (code, record["outcome"], record["detail"]["reused"]) == (0, "reused", True)
    assert node.ran == {"quantize": 1, "trtllm-build": 2}

    code, record = node.run("elsewhere", FAKE_GPUS="NVIDIA L4, 8.9, 580.65.06")
    assert (code != 0, record["failure"]["kind"]) == (True, "EngineRefused")
    assert "here is NVIDIA L4 (SM89)" in record["failure"]["message"]
    assert node.ran == {"quantize": 1, "trtllm-build": 2}
    page = (node.home / "runs/elsewhere/report.html").read_text()
    assert "here is NVIDIA L4 (SM89)" in page
