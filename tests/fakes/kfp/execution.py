"""Executes posted runs for real, through kfp.local: a process group each, its tasks as they go."""

from __future__ import annotations

import copy
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import yaml

from tests.fakes.kfp.clock import shown
from tests.fakes.kfp.ir import documents
from tests.fakes.kfp.rows import FINAL, RunRow, task_row

if TYPE_CHECKING:
    from tests.fakes.kfp.server import Double

_COLOR = re.compile(r"\x1b\[[0-9;]*m")
_BEGINS = re.compile(r"Executing task '(?P<name>[^']+)'")
_ENDS = re.compile(r"Task '(?P<name>[^']+)' finished with status (?P<status>\w+)")
_GRACE_S = 5.0


class Executor:
    """Runs what the server is sent.

    Args:
        double: The server.
        folder: Where artifacts and logs go.
        env: Environment of the tasks; without PENSTOCK_RUN_ID each run has its own, as in pods.
        volumes: Variables that name a folder in a pod, and the folder here that is mounted there.
    """

    def __init__(
        self, double: Double, folder: Path, env: Mapping[str, str], volumes: Mapping[str, str]
    ) -> None:
        self._double, self._folder = double, folder
        self._env, self._volumes = {**env, **volumes}, dict(volumes)
        self._processes: dict[str, subprocess.Popen[str]] = {}
        self._threads: list[threading.Thread] = []
        double.store.started = self.start

    def start(self, row: RunRow) -> None:
        """Start a run; called by the server when it is created or retried."""
        row.script, row.executed = [], True
        root = self._folder / row.body["run_id"] / str(row.attempt)
        root.mkdir(parents=True)
        request = {
            "text": yaml.safe_dump_all(self._mounted(d) for d in documents(row.ir) if d),
            "parameters": dict(row.executed_with),
            "root": str(root),
        }
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.fakes.kfp.launch"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=Path(__file__).parents[3],
            env={
                "PENSTOCK_RUN_ID": row.body["run_id"],
                **self._env,
                "PYTHONUNBUFFERED": "1",
            },
            start_new_session=True,  # one signal to the group ends every task
        )
        self._processes[row.body["run_id"]] = process
        thread = threading.Thread(target=self._watch, args=(row, process, json.dumps(request)))
        self._threads.append(thread)
        thread.start()

    def _mounted(self, document: dict[str, Any]) -> dict[str, Any]:
        found = copy.deepcopy(document)
        for executor in found.get("deploymentSpec", {}).get("executors", {}).values():
            for variable in executor.get("container", {}).get("env", ()):
                variable["value"] = self._volumes.get(variable["name"], variable["value"])
        return found

    def stop(self) -> None:
        """End everything that runs."""
        for process in self._processes.values():
            _end(process)
        for thread in self._threads:
            thread.join(30)

    def _watch(self, row: RunRow, process: subprocess.Popen[str], request: str) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(request)
        process.stdin.close()
        self._change(row, lambda: row.become("RUNNING", self._double.clock.now()))
        canceled = threading.Event()
        threading.Thread(target=self._cancel, args=(row, process, canceled), daemon=True).start()
        with process.stdout:
            self._read(row, process.stdout)
        code = process.wait()
        final = "CANCELED" if canceled.is_set() else "SUCCEEDED" if code == 0 else "FAILED"
        self._change(row, lambda: self._finish(row, final))

    def _cancel(
        self, row: RunRow, process: subprocess.Popen[str], canceled: threading.Event
    ) -> None:
        """End the group once the run is canceled."""
        while process.poll() is None:
            if row.state == "CANCELING":
                canceled.set()
                _end(process)
                return
            canceled.wait(0.05)

    def _read(self, row: RunRow, lines: IO[str]) -> None:
        """Follow the tasks in what kfp.local prints."""
        pod = ""
        kept: list[str] = []
        for line in lines:
            text = _COLOR.sub("", line)
            begins, ends = _BEGINS.search(text), _ENDS.search(text)
            if begins:
                pod, kept = f"{begins['name']}-{row.body['run_id'][:8]}-main", []
                self._change(row, lambda name=begins["name"]: self._begin(row, name))
            kept.append(text.removeprefix("    "))
            if pod:
                row.logs[pod] = "".join(kept)
            if ends:
                done = ends["status"] == "SUCCESS"
                self._change(row, lambda name=ends["name"], ok=done: self._close(row, name, ok))

    def _begin(self, row: RunRow, name: str) -> None:
        row.tasks.append(task_row(name, row.body["run_id"], self._double.clock.now()))

    def _close(self, row: RunRow, name: str, succeeded: bool) -> None:
        for task in row.tasks:
            if task["display_name"] == name and task["state"] not in FINAL:
                task["state"] = "SUCCEEDED" if succeeded else "FAILED"
                task["end_time"] = shown(self._double.clock.now())
                if not succeeded:
                    task["error"] = {"code": 13, "message": f"task {name} exited with an error"}

    def _finish(self, row: RunRow, final: str) -> None:
        for task in row.tasks:
            if task["state"] not in FINAL:
                task["state"] = final if final == "CANCELED" else "FAILED"
                task["end_time"] = shown(self._double.clock.now())
        row.become(final, self._double.clock.now())

    def _change(self, row: RunRow, change: object) -> None:
        """Make a change between two requests; none once the server is gone."""
        if not row.held and self._double.alive:
            self._double.do(change)  # type: ignore[arg-type]


def _end(process: subprocess.Popen[str]) -> None:
    for sign in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, sign)
        except ProcessLookupError:
            return
        try:
            process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            continue
        return
