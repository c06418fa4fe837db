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
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from penstock.cli.app import app
from penstock.core.identity import ModelRef
from pipelines.steps import STEPS
from registry.store import Store
from serving.rollout import events
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

    largest_file = "unlimited"
    """In blocks of 512 bytes: what is written beyond fails, as on a full disk."""

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
        limit = ["sh", "-c", f'ulimit -f {self.largest_file}; exec "$@"', "sh"]
        return subprocess.Popen(
            [*limit, sys.executable, "-m", "penstock.cli", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**self.env, **env},
        )

    def call(self, *words: str, **env: str) -> tuple[int, str, str]:
        process = self.start(*words, **env)
        out, err = process.communicate(timeout=170)
        return process.returncode, out, err

    def store(self, *words: str) -> dict[str, Any]:
        """Call `penstock store` in this process: it imports MLflow, which takes seconds."""
        result = CliRunner(env=self.env).invoke(app, ["store", *words, "--output", "json"])
        assert result.exception is None, result.output
        found: dict[str, Any] = json.loads(result.output)
        return found

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


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, hub: str) -> Iterator[Home]:
    """A home whose cluster serves the tiny model, after one run."""
    home = Home(tmp_path_factory.mktemp("served"), hub)
    spec = home.spec("hf://acme/tiny", home.data(*[_row(n) for n in range(6)]))
    try:
        code, out, err = home.call("run", str(spec))
        assert code == 0, out + err
        assert "beware: data.evaluate has 6 rows" in out + err
        yield home
    finally:
        home.call("local", "down")


@pytest.fixture(scope="module")
def idle(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A home without a cluster, whose memory the tests share."""
    home = Home(tmp_path_factory.mktemp("idle"))
    home.data(_row(1))
    return home


def _status(home: Home) -> dict[str, Any]:
    _, out, _ = home.call("local", "status", "--output", "json")
    found: dict[str, Any] = json.loads(out)
    return found


def _until(done: Callable[[], object], seconds: float = 60) -> None:
    never, deadline = threading.Event(), time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, "it did not happen in time"
        never.wait(0.05)


def test_from_the_hub_to_an_answer(served: Home) -> None:
    (summary,) = served.summaries()
    assert [s["name"] for s in summary["steps"]] == [*STEPS]
    assert {s["outcome"] for s in summary["steps"]} == {"done"}
    artifacts = served.root / "home/runs" / summary["run_id"] / "artifacts"
    pages = {page.parent.name: page.read_text() for page in artifacts.glob("*/*/page")}
    assert set(pages) == {"scan", "check-data", "quantize", "evaluate", "rollout"}
    assert all(text.startswith("<!doctype html>") for text in pages.values())
    assert "exact match" in pages["evaluate"]
    assert summary["result"]["deploy"]["aliases"] == ["champion"]
    code, out, err = served.call("chat", "tiny", "what is 1?", "--max-tokens", "4")
    assert (code, bool(out.strip())) == (0, True), err


def test_again_reuses_what_is_done(served: Home) -> None:
    code, out, err = served.call("run", str(served.root / "model.yaml"), "--output", "json")
    assert code == 0, err
    again = json.loads(out)
    outcomes = {s["name"]: s["outcome"] for s in again["steps"]}
    assert outcomes["pull"] == outcomes["evaluate"] == outcomes["check_data"] == "reused"
    assert again["result"]["register"]["version"] == 1
    page = (served.root / "home/runs" / again["run_id"] / "report.html").read_text()
    assert "Exact match per skill" in page


def test_the_served_model_is_evaluated_and_compared(served: Home, tmp_path: Path) -> None:
    url = _status(served)["gateway_url"]
    words = ["evaluate", url, "--model", "tiny", "--data", str(served.root / "evaluate.jsonl")]
    words += ["--max-new-tokens", "2", "--output", "json"]
    code, out, err = served.call(*words, "--save", str(tmp_path / "saved.json"))
    assert (code, json.loads(out)["exact_match"]["n"]) == (0, 6), err
    against = ["--against", str(tmp_path / "saved.json")]
    code, out, err = served.call(*words, *against, "--margin", "0.9")
    assert (code, json.loads(out)["comparison"]["outcome"]) == (0, "pass"), err
    code, out, err = served.call(*words, *against)  # six items cannot show 1.5 points
    assert (code, json.loads(out)["comparison"]["outcome"]) == (4, "insufficient_items"), err


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of SQLAlchemy, about MLflow
def test_gc_removes_only_what_nothing_needs(served: Home, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    store = Store(served.root / "home/store")
    unused = store.add(tmp_path, ModelRef.parse("hf://acme/unused@main")).root
    gc = ["gc", "--unused-for"]
    assert served.store(*gc, "1")["removed"] == []
    assert served.store(*gc, "0", "--dry-run")["removed"] == [str(unused)]
    assert unused in store.roots()
    assert served.store(*gc, "0")["freed_bytes"] == 2
    (kept,) = served.store("list")["checkpoints"]
    assert kept["needed_by"] == ["served as tiny-v1", "tiny version 1 (champion)"]


def test_an_engine_that_never_becomes_ready(served: Home, tiny: Path, tmp_path: Path) -> None:
    model = shutil.copytree(tiny, tmp_path / "other")
    (model / "README.md").write_text("another version")
    more = {"evaluation": {"max_new_tokens": 4, "max_quality_loss": 0.9}}
    more["rollout"] = {"ready_timeout_s": 2}
    spec = served.spec(f"file://{model}", "evaluate.jsonl", **more)
    supervisor = int(_status(served)["supervisor_pid"])
    os.kill(supervisor, signal.SIGSTOP)  # nobody starts the engine
    try:
        for step in STEPS[-2:]:
            _interrupt(served, spec, step)
        code, _, err = served.call("run", str(spec))
    finally:
        os.kill(supervisor, signal.SIGCONT)
    assert (code, "tiny-v2 was rolled back: the candidate is not ready" in err) == (4, True), err
    assert "certificate verify" in err
    (path,) = (served.root / "home/runs").glob("*/rollout/certificate.json")
    assert events.verify(path.read_text())[-1].record.phase == "rolled_back"
    assert [s["service"] for s in _status(served)["services"]] == ["tiny-v1"]
    assert served.call("chat", "tiny", "what is 1?", "--max-tokens", "4")[0] == 0


def test_an_altered_file_is_not_served_and_pulled_again(served: Home) -> None:
    root = served.summaries()[0]["result"]["pull"]["root"].removeprefix("sha256:")
    config = served.root / "home/store/checkpoints" / root / "config.json"
    before = config.read_bytes()
    config.chmod(0o644)
    config.write_bytes(before.replace(b" ", b"\n"))
    (replica,) = _status(served)["services"]
    for pid in replica["pids"]:
        os.kill(pid, signal.SIGKILL)
    _until(lambda: "changed: config.json" in _status(served)["services"][0]["reason"])
    code, _, err = served.call("chat", "tiny", "what is 1?")
    assert (code, "no replica" in err) == (7, True), err
    spec = served.spec("hf://acme/tiny", "evaluate.jsonl")
    code, out, err = served.call("run", str(spec))
    assert code == 0, out + err
    assert config.read_bytes() == before
    assert served.call("chat", "tiny", "what is 1?", "--max-tokens", "4")[0] == 0


def _fails(home: Home, spec: Path, code: int, said: str, step: str, **env: str) -> dict[str, Any]:
    found, out, err = home.call("run", str(spec), "--no-start", **env)
    assert (found, said in err) == (code, True), out + err
    assert f"step {step} failed" in err
    assert "next: " in err
    summary = home.summaries()[-1]
    assert summary["outcome"] == "failed"
    assert [s["outcome"] for s in summary["steps"]].count("failed") == 1
    run = home.root / "home/runs" / summary["run_id"]
    assert said.partition("\n")[0][:40] in (run / "report.html").read_text().replace("&#x27;", "'")
    return summary


def _interrupt(home: Home, spec: Path, step: str, *words: str) -> None:
    """Run until a step begins, then press Ctrl-C."""

    def begun() -> set[Path]:
        return set((home.root / "home").glob(f"runs/*/steps/{step}.json"))

    before = begun()
    process = home.start("run", str(spec), *words)
    _until(lambda: begun() - before or process.poll() is not None, 240)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, (step, out, err)
    assert "run the same command again" in err
    assert home.summaries()[-1]["outcome"] == "interrupted"


def test_ctrl_c_at_every_step_keeps_what_is_done(idle: Home, tiny: Path) -> None:
    spec = idle.spec(f"file://{tiny}", "evaluate.jsonl")
    for step in STEPS[:-2]:  # the others: test_an_engine_that_never_becomes_ready
        _interrupt(idle, spec, step, "--no-start")
    summary = _fails(idle, spec, 7, "its supervisor or gateway does not run", "deploy")
    outcomes = {s["name"]: s["outcome"] for s in summary["steps"]}
    assert outcomes["check_data"] == outcomes["evaluate"] == "reused"


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


def test_a_full_disk(tmp_path: Path, hub: str) -> None:
    home = Home(tmp_path, hub)
    home.largest_file = "100"
    spec = home.spec("hf://acme/tiny", home.data(_row(1)))
    _fails(home, spec, 5, "no space left", "pull")
    assert not (tmp_path / "home/store/checkpoints").exists()


def test_checkpoint_faults(tmp_path: Path, tiny: Path) -> None:
    for name, said, step in (
        ("pickles", "weights only as pickles", "pull"),
        ("code", "brings code of its own (modeling_acme.py)", "pull"),
        ("tokenizer", "tokenizer.json", "scan"),
        ("truncated", "safetensors: model.safetensors", "scan"),
    ):
        home = Home(tmp_path / name)
        model = shutil.copytree(tiny, home.root / "model")
        if name == "pickles":
            (model / "model.safetensors").rename(model / "pytorch_model.bin")
        elif name == "code":
            (model / "modeling_acme.py").write_text("")
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


def test_a_model_that_is_not_good_enough_is_not_registered(idle: Home, tiny: Path) -> None:
    wanted = {"min_exact_match": 0.9, "max_new_tokens": 4}
    spec = idle.spec(f"file://{tiny}", "evaluate.jsonl", evaluation=wanted)
    summary = _fails(idle, spec, 4, "below evaluation.min_exact_match 90.0%", "evaluate")
    assert summary["failure"]["kind"] == "EvaluationFailed"


def test_an_mlflow_that_does_not_answer(idle: Home, tiny: Path) -> None:
    spec = idle.spec(f"file://{tiny}", "evaluate.jsonl")
    dead = f"http://user:s3cret@127.0.0.1:{_free_port()}"
    summary = _fails(idle, spec, 6, "does not answer", "evaluate", MLFLOW_TRACKING_URI=dead)
    assert "s3cret" not in json.dumps(summary)


def test_a_port_that_is_taken(tmp_path: Path, tiny: Path) -> None:
    home = Home(tmp_path)
    spec = home.spec(f"file://{tiny}", home.data(_row(1)))
    with socket.create_server(("127.0.0.1", int(home.env["PENSTOCK_GATEWAY_PORT"]))):
        code, _, err = home.call("run", str(spec))
    assert (code, "PENSTOCK_GATEWAY_PORT" in err) == (2, True), err
    assert not (tmp_path / "home/runs").exists()
