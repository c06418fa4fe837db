"""`penstock run`, as a person types it: the whole lifecycle on a tiny model, and every fault."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.tiny_model import make_tiny_model

pytestmark = pytest.mark.integration


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        return int(unused.getsockname()[1])


def _row(number: int, **changes: object) -> dict[str, object]:
    messages = [{"role": "user", "content": f"what is {number}?"}]
    return {"id": str(number), "skill": "s", "messages": messages, "answer": "x", **changes}


class Home:
    """A home folder, and the command line over it."""

    def __init__(self, root: Path, hub: str = "") -> None:
        self.root = root
        self.env = {
            **os.environ,  # noqa: TID251 - the edge of the test
            "PENSTOCK_HOME": str(root / "home"),
            "PENSTOCK_GATEWAY_PORT": str(_free_port()),
            **({"HF_ENDPOINT": hub} if hub else {}),
        }

    def data(self, *rows: dict[str, object], name: str = "evaluate.jsonl") -> str:
        (self.root / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
        return name

    def spec(self, source: str, data: str, **more: object) -> Path:
        body = {"name": "tiny", "source": source, "data": {"evaluate": data}, **more}
        body.setdefault("evaluation", {"max_new_tokens": 4})
        path = self.root / "model.yaml"
        path.write_text(json.dumps(body))
        return path

    def start(self, *words: str, **env: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "penstock.cli", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**self.env, **env},
        )

    def call(self, *words: str, **env: str) -> tuple[int, str, str]:
        process = self.start(*words, **env)
        out, err = process.communicate(timeout=170)
        return process.returncode, out, err

    def summaries(self) -> list[dict[str, Any]]:
        found = sorted((self.root / "home/runs").glob("*/summary.json"))
        return [json.loads(path.read_text()) for path in found]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> Iterator[str]:
    root = tmp_path_factory.mktemp("hub")
    shutil.copytree(tiny, root / "acme/tiny")
    shutil.copytree(tiny, root / "acme/gated")
    (root / "acme/gated/.penstock-hub.json").write_text('{"gated": true}')
    server = Home(root).start("hub", "serve", str(root), "--port", "0")
    assert server.stdout is not None
    yield server.stdout.readline().rpartition(" at ")[2].strip()
    server.terminate()
    server.communicate()


def test_from_the_hub_to_an_answer_and_again(tmp_path: Path, hub: str) -> None:
    home = Home(tmp_path, hub)
    spec = home.spec("hf://acme/tiny", home.data(*[_row(n) for n in range(6)]))
    try:
        code, out, err = home.call("run", str(spec))
        assert code == 0, out + err
        (summary,) = home.summaries()
        assert [s["name"] for s in summary["steps"]] != []
        assert {s["outcome"] for s in summary["steps"]} == {"done"}
        assert summary["result"]["deploy"]["aliases"] == ["champion"]
        code, out, err = home.call("chat", "tiny", "what is 1?", "--max-tokens", "4")
        assert code == 0, err
        code, out, err = home.call("run", str(spec), "--output", "json")
        again = json.loads(out)
        assert code == 0, err
        outcomes = {s["name"]: s["outcome"] for s in again["steps"]}
        assert outcomes["pull"] == outcomes["evaluate"] == outcomes["check_data"] == "reused"
        assert again["result"]["register"]["version"] == 1
        page = (tmp_path / "home/runs" / again["run_id"] / "report.html").read_text()
        assert "Exact match per skill" in page
    finally:
        home.call("local", "down")


def _fails(home: Home, spec: Path, code: int, said: str, step: str, **env: str) -> dict[str, Any]:
    found, out, err = home.call("run", str(spec), "--no-start", **env)
    assert (found, said in err) == (code, True), out + err
    assert f"step {step} failed" in err
    assert "next: " in err
    (summary,) = home.summaries()
    assert summary["outcome"] == "failed"
    assert [s["outcome"] for s in summary["steps"]].count("failed") == 1
    run = next((home.root / "home/runs").iterdir())
    assert said.partition("\n")[0][:40] in (run / "report.html").read_text().replace("&#x27;", "'")
    return summary


def test_hub_faults(tmp_path: Path, hub: str) -> None:
    data = [_row(1)]
    for name, source, said in (
        ("revision", "hf://acme/tiny@v9", "no revision 'v9'"),
        ("gated", "hf://acme/gated", "no token is set"),
    ):
        home = Home(tmp_path / name, hub)
        home.root.mkdir()
        step = "resolve" if name == "revision" else "pull"
        _fails(home, home.spec(source, home.data(*data)), 3, said, step)


def test_checkpoint_faults(tmp_path: Path, tiny: Path) -> None:
    for name, said, step in (
        ("pickles", "weights only as pickles", "pull"),
        ("tokenizer", "tokenizer.json", "scan"),
        ("truncated", "safetensors: model.safetensors", "scan"),
    ):
        home = Home(tmp_path / name)
        model = shutil.copytree(tiny, home.root / "model")
        if name == "pickles":
            (model / "model.safetensors").rename(model / "pytorch_model.bin")
        elif name == "tokenizer":
            (model / "tokenizer.json").write_text('{"model": 1}')
        else:
            os.truncate(model / "model.safetensors", 1000)
        spec = home.spec(f"file://{model}", home.data(_row(1)))
        summary = _fails(home, spec, 4, said, step)
        assert "register" not in {s["name"] for s in summary["steps"]}


def test_data_faults(tmp_path: Path, tiny: Path) -> None:
    for name, rows, said in (
        ("empty", [], "no rows"),
        ("duplicate", [_row(1), _row(2), _row(1, id="3")], "no prompt comes twice: 2 rows fail"),
    ):
        home = Home(tmp_path / name)
        home.root.mkdir()
        _fails(home, home.spec(f"file://{tiny}", home.data(*rows)), 4, said, "check_data")


def test_a_model_that_is_not_good_enough_is_not_registered(tmp_path: Path, tiny: Path) -> None:
    home = Home(tmp_path)
    wanted = {"min_exact_match": 0.9, "max_new_tokens": 2}
    spec = home.spec(f"file://{tiny}", home.data(_row(1)), evaluation=wanted)
    summary = _fails(home, spec, 4, "below evaluation.min_exact_match 90.0%", "evaluate")
    assert summary["failure"]["kind"] == "EvaluationFailed"


def test_an_mlflow_that_does_not_answer(tmp_path: Path, tiny: Path) -> None:
    home = Home(tmp_path)
    spec = home.spec(f"file://{tiny}", home.data(_row(1)))
    dead = f"http://user:s3cret@127.0.0.1:{_free_port()}"
    summary = _fails(home, spec, 6, "does not answer", "evaluate", MLFLOW_TRACKING_URI=dead)
    assert "s3cret" not in json.dumps(summary)


def test_a_cluster_that_does_not_run(tmp_path: Path, tiny: Path) -> None:
    home = Home(tmp_path)
    _fails(home, home.spec(f"file://{tiny}", home.data(_row(1))), 7, "does not run", "deploy")


def test_ctrl_c_keeps_what_is_done(tmp_path: Path, tiny: Path) -> None:
    home = Home(tmp_path)
    spec = home.spec(f"file://{tiny}", home.data(_row(1)))
    process = home.start("run", str(spec), "--no-start")
    never, deadline = threading.Event(), time.monotonic() + 60
    while not list((tmp_path / "home").glob("runs/*/steps/pull.json")):
        assert time.monotonic() < deadline
        never.wait(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, out + err
    assert "run the same command again" in err
    (summary,) = home.summaries()
    assert summary["outcome"] == "interrupted"
