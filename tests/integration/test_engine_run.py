"""`penstock engine run`, as a person types it, with the CPU engine as what a GPU would serve."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from benchmarks.guard_items import SKILLS, rounded
from components.steps.engine_work import EXAMPLES, PYTHON
from penstock.core.errors import ConfigurationError, Interrupted, PrecisionRefused
from pipelines.steps import ENGINE_STEPS
from serving.local.processes import born
from tests.fakes import trtllm, trtllm_parent

pytestmark = pytest.mark.integration


class Home:
    """A home folder on a node with the fake programs, and the command line over it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        programs = root / "programs"
        found = trtllm.install(programs)
        before = dict(os.environ)  # noqa: TID251 - the edge of the test
        self.env = before | {
            "PATH": f"{programs / 'bin'}:{before['PATH']}",
            "FAKE_GPUS": found["FAKE_GPUS"],
            "PENSTOCK_HOME": str(root / "home"),
            PYTHON: sys.executable,
            EXAMPLES: str(programs / "examples"),
            "OMP_NUM_THREADS": "1",
        }
        rows = (SKILLS / "data/evaluate.jsonl").read_text().splitlines(keepends=True)
        (root / "evaluate.jsonl").write_text("".join(rows[::30]))

    def spec(self, **more: object) -> Path:
        body = {
            "name": "skills",
            "source": f"file://{SKILLS / 'model'}",
            "runtime": "tensorrt-llm",
            "hardware": {"accelerator": "nvidia-h100-80gb"},
            "engine": trtllm_parent.FITS,
            "data": {"evaluate": "evaluate.jsonl"},
            "evaluation": {"max_new_tokens": 24, "max_quality_loss": 0.05},
            **more,
        }
        path = self.root / "model.yaml"
        path.write_text(json.dumps(body))
        return path

    def call(self, *words: object, **env: str) -> tuple[int, str, str]:
        done = subprocess.run(
            [sys.executable, "-m", "penstock.cli", "engine", *map(str, words)],
            capture_output=True,
            text=True,
            check=False,
            timeout=240,
            env={**self.env, **env},
        )
        return done.returncode, done.stdout, done.stderr

    def json(self, *words: object, **env: str) -> tuple[int, dict[str, Any]]:
        code, out, err = self.call(*words, "--output", "json", **env)
        assert out, err
        return code, json.loads(out)


def test_what_is_as_good_may_be_served_and_what_is_not_may_not(tmp_path: Path) -> None:
    home = Home(tmp_path)
    near = rounded(SKILLS / "model", tmp_path / "int8", bits=8, group=32)
    code, summary = home.json("run", home.spec(), FAKE_CANDIDATE=str(near))
    assert (code, summary["outcome"]) == (0, "done"), summary["failure"]
    assert [step["name"] for step in summary["steps"]] == list(ENGINE_STEPS)
    verdict = summary["result"]["judge_engine"]["verdict"]
    assert (verdict["outcome"], verdict["n"], verdict["not_compared"]) == ("accept", 70, "")
    assert {m["name"]: m["value"] for m in verdict["measures"]}["mean KL"] < 0.01

    far = rounded(SKILLS / "model", tmp_path / "int2", bits=2, group=64)
    other = home.spec(precision=[{"scheme": "modelopt-int4-awq", "group_size": 64}])
    code, _, err = home.call("run", other, FAKE_CANDIDATE=str(far))
    assert code == PrecisionRefused.exit_code, err
    assert "step judge_engine failed" in err
    assert "it lost skill" in err
    _, listed = home.json("list")
    told = {each["scheme"]: (each["servable"], each["verdict"]) for each in listed["engines"]}
    assert told["fp8"][0]
    assert told["fp8"][1].startswith("accept: ")
    assert not told["int4_awq"][0]
    assert told["int4_awq"][1].startswith("refuse, so not to be served: it lost skill")
    keys = {each["scheme"]: each["key"] for each in listed["engines"]}
    _, out, _ = home.call("verify", keys["int4_awq"])
    assert "refuse, so not to be served" in out

    code, out, _ = home.call("run", home.spec(), FAKE_CANDIDATE=str(far))
    assert code == 0, "built and judged already: nothing is started"
    for step in ENGINE_STEPS:
        assert f" {step}" in out
    report = Path(out.rpartition("report: ")[2].strip())
    assert "build key" in report.read_text()


def test_what_stops_it_is_told_with_the_exit_code_of_its_cause(tmp_path: Path) -> None:
    home = Home(tmp_path)
    code, summary = home.json("run", home.spec(data={}))
    assert (code, summary["failure"]["kind"]) == (4, "DataRefused")
    code, _, err = home.call("run", home.spec(precision="int8"))
    assert code == ConfigurationError.exit_code
    assert "step resolve failed" in err
    assert home.call("run", tmp_path / "absent.yaml")[0] == ConfigurationError.exit_code


def test_ctrl_c_ends_servers_and_keeps_what_is_built(tmp_path: Path) -> None:
    home = Home(tmp_path)
    process = subprocess.Popen(
        [sys.executable, "-m", "penstock.cli", "engine", "run", str(home.spec())],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**home.env, "FAKE_TRTLLM": "hang:trtllm-serve"},
    )
    never, until, started = threading.Event(), time.monotonic() + 60, ""
    while not (found := re.search(r"trtllm-serve (\d+)", started)):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until, "no server was started"
        never.wait(0.05)
        ran = tmp_path / "programs" / "ran"
        started = ran.read_text() if ran.exists() else ""
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == Interrupted.exit_code
    assert "run the same command again" in err
    while born(int(found[1])) is not None:
        assert time.monotonic() < until, "the server outlived its run"
        never.wait(0.05)
    _, listed = home.json("list")
    (built,) = listed["engines"]
    assert (built["state"], built["servable"]) == ("built", False)
