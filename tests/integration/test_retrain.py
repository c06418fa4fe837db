"""Retrain and redeploy on this machine, as a schedule does it: with the example's model.

Everything happens by the clock's own process (`penstock.cli.schedule_tick`) or by a trigger; nobody
steers anything.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from examples.skills.lessons import ANSWER, NEW, POISONED, QUESTION, Lessons
from penstock.cli.retrain_story import spec_of
from penstock.cli.users import Users, conversations_in

pytestmark = [pytest.mark.integration, pytest.mark.soak]
EXAMPLE = Path(__file__).parents[2] / "examples/skills"
ENVIRON = dict(os.environ)  # noqa: TID251 - the edge of the test


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        return int(unused.getsockname()[1])


class Home:
    """A home folder with a schedule that only fires when it is told to."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.lessons = Lessons(root / "data")
        self.env = {
            **ENVIRON,
            "PENSTOCK_HOME": str(root / "home"),
            "PENSTOCK_GATEWAY_PORT": str(_free_port()),
        }

    def start(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "penstock.cli", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.env,
        )

    def call(self, *words: str) -> tuple[int, str, str]:
        process = self.start(*words)
        out, err = process.communicate(timeout=1500)
        return process.returncode, out, err

    def create(self, **changes: Any) -> None:
        body = spec_of(yaml.safe_load((EXAMPLE / "model.yaml").read_text()), self.root / "data")
        body |= {"source": f"file://{EXAMPLE / 'model'}", **changes}
        path = self.root / "model.yaml"
        path.write_text(yaml.safe_dump(body))
        never = ("--cron", "0 0 29 2 *")
        code, out, err = self.call("schedule", "create", "nightly", str(path), *never, "--local")
        assert code == 0, out + err

    def tick(self) -> dict[str, Any]:
        """Fire it, and return what was written down."""
        _, out, err = self.call("schedule", "trigger", "nightly", "--local")
        assert "Traceback" not in err, err
        found = self.ticks()[-1]
        assert found["outcome"] != "running", out + err
        return found

    def ticks(self) -> list[dict[str, Any]]:
        code, out, err = self.call("schedule", "show", "nightly", "--local", "--output", "json")
        assert code == 0, err
        found: list[dict[str, Any]] = json.loads(out)["ticks"]
        return found

    @contextmanager
    def users(self) -> Iterator[Users]:
        """Have somebody ask all the time what is asked of versions too."""
        url = f"http://127.0.0.1:{self.env['PENSTOCK_GATEWAY_PORT']}"
        asked = conversations_in((self.root / "data/evaluate.jsonl").read_text())
        users = Users(url, "skills", asked, rps=5.0, seed=7)
        with users.asking():
            yield users

    def ask(self, question: str) -> str:
        code, out, err = self.call("chat", "skills", question, "--temperature", "0")
        assert code == 0, err
        return out.strip()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    made = Home(tmp_path_factory.mktemp("retrain"))
    made.lessons.base()
    made.create()
    try:
        yield made
    finally:
        made.call("local", "down")


def test_new_data_is_trained_proven_and_served_and_poison_is_not(home: Home) -> None:
    first = home.tick()
    assert first["told"].startswith("first"), first
    same = home.tick()
    assert same["told"].startswith("no change"), same

    with home.users() as users:
        home.lessons.more()
        more = home.tick()
        assert (more["outcome"], more["told"].split(":")[0]) == ("done", "promoted"), more
        assert home.ask(QUESTION) == ANSWER

        home.lessons.poisoned()
        poisoned = home.tick()
    assert users.failures == []
    assert poisoned["told"].startswith(("blocked: evaluate", "rolled back")), poisoned
    assert POISONED in poisoned["told"]
    assert home.tick()["told"].startswith("refused before")
    assert home.ask(QUESTION) == ANSWER  # who was served still is

    run = home.root / "home/runs" / more["run_id"]
    detail = json.loads((run / "summary.json").read_text())["result"]["detect_changes"]
    assert [change["what"] for change in detail["changes"]] == ["data.evaluate", "data.train"]
    scored = json.loads((run / "summary.json").read_text())["result"]["evaluate"]["skills"]
    assert NEW in [skill["skill"] for skill in scored]
    assert "What is new" in (run / "report.html").read_text()


def _until(done: Callable[[], object], seconds: float = 300) -> None:
    never, ends_at = threading.Event(), time.monotonic() + seconds
    while not done():
        assert time.monotonic() < ends_at
        never.wait(0.1)


@pytest.mark.parametrize("step", ["detect_changes", "train", "evaluate", "register", "deploy"])
def test_a_tick_that_is_killed_is_resumed(tmp_path: Path, step: str) -> None:
    home = Home(tmp_path)
    Lessons(tmp_path / "data", known=8, new=0, asked=4).base()
    training = {"method": "full", "steps": 2, "batch_rows": 4, "learning_rate": 1e-6}
    home.create(training=training, evaluation={"max_new_tokens": 4})
    try:
        process = home.start("schedule", "trigger", "nightly", "--local")
        _until(lambda: list(tmp_path.glob(f"home/runs/*/steps/{step}.json")))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        lock = tmp_path / "home/schedules/skills.lock"
        skipped = home.tick()  # what it left behind may still be at it: then nothing else is
        if skipped["outcome"] == "skipped":
            from serving.local.processes import holder

            assert "goes on" in skipped["told"]
            _until(lambda: holder(lock) is None, 1500)
            again = home.tick()
            assert again["told"].startswith("no change"), again  # it came to its end by itself
        else:
            # who is killed last of all has served it already
            assert skipped["told"].startswith(("first", "no change")), skipped
    finally:
        home.call("local", "down")


def test_a_deadline_ends_every_process_of_the_run(tmp_path: Path) -> None:
    home = Home(tmp_path)
    Lessons(tmp_path / "data", known=40, new=0, asked=4).base()
    training = {"method": "full", "steps": 5000, "batch_rows": 8, "learning_rate": 1e-6}
    home.create(training=training)
    path = tmp_path / "home/schedules/nightly.json"
    kept = json.loads(path.read_text())
    kept["schedule"]["deadline_s"] = 10
    path.write_text(json.dumps(kept))
    try:
        late = home.tick()
        assert (late["outcome"], "deadline, 10 s" in late["told"]) == ("deadline", True), late
        left = subprocess.run(
            ["pgrep", "-f", f"{tmp_path}/home/runs"], capture_output=True, text=True, check=False
        )
        assert left.stdout == ""
    finally:
        home.call("local", "down")
