"""Somebody who types `penstock run` against a cluster, and the Hub that they pull from."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.cluster.served import penstock
from tests.cluster.stage import Stage
from tests.fakes.tiny_model import make_tiny_model

_ITEMS = 150
RUN_S = 600.0


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
        write_items(folder / "evaluate.jsonl")

    @contextmanager
    def running(
        self, source: str, *arguments: str, **wanted: Any
    ) -> Iterator[subprocess.Popen[str]]:
        """Have `penstock run` go on; it is ended if the block ends first."""
        spec = self.stage.spec(
            source=source,
            data={"evaluate": "evaluate.jsonl"},
            evaluation={"max_new_tokens": 4, "max_quality_loss": 0.9},
            runtime_args=list(arguments),
            **wanted,
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

    def run(self, source: str, *arguments: str, **wanted: Any) -> tuple[int, str]:
        """Run it to its end; return the exit code and what it said."""
        with self.running(source, *arguments, **wanted) as process:
            return self.end(process)

    def end(self, process: subprocess.Popen[str]) -> tuple[int, str]:
        """Wait for the end; return the exit code and what it said."""
        said, _ = process.communicate(timeout=RUN_S)
        print(said)
        return process.returncode, said

    def call(self, *words: str) -> tuple[int, str]:
        """Run another command."""
        return penstock(*words, **self.env)


def write_items(path: Path) -> None:
    """Write an evaluation set that no tiny model can answer."""
    rows = [
        {
            "id": str(number),
            "skill": "s",
            "messages": [{"role": "user", "content": f"what is {number}?"}],
            "answer": "x",
        }
        for number in range(_ITEMS)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@contextmanager
def hub(root: Path) -> Iterator[str]:
    """Serve a mirror of the Hub with three checkpoints of different content; yields its URL."""
    for number in (1, 2, 3):
        model = make_tiny_model(root / f"acme/v{number}")
        (model / "README.md").write_text(f"version {number}")
    command = [sys.executable, "-m", "penstock.cli", "hub", "serve", str(root), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield server.stdout.readline().rpartition(" at ")[2].strip()
        finally:
            server.terminate()
