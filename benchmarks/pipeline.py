"""What the pipeline costs beside its steps: `python -m benchmarks.pipeline [--out DIR]`.

Runs the lifecycle of the example model on this machine several times, each in a new home, and
compares the run's wall time with the seconds the steps spent at their own work. Everything else is
overhead: importing kfp, starting a process per task, ending it, and the record of the run.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

EXAMPLE = Path(__file__).parents[1] / "examples" / "skills"
ROUNDS, ROWS, GOAL_S = 3, 100, 0.5
_CLI = (sys.executable, "-m", "penstock.cli")


def run_once(folder: Path, port: int) -> dict[str, Any]:
    """Run the lifecycle in a new home; return its record."""
    env = {**os.environ, "PENSTOCK_HOME": str(folder / "home"), "PENSTOCK_GATEWAY_PORT": str(port)}
    rows = (EXAMPLE / "data" / "evaluate.jsonl").read_text().splitlines(keepends=True)
    (folder / "evaluate.jsonl").write_text("".join(rows[:ROWS]))
    spec = {
        "name": "skills",
        "source": f"file://{EXAMPLE / 'model'}",
        "data": {"evaluate": "evaluate.jsonl"},
    }
    (folder / "model.yaml").write_text(json.dumps(spec))
    subprocess.run([*_CLI, "local", "up"], env=env, check=True, stdout=subprocess.DEVNULL)
    try:
        words = [*_CLI, "run", str(folder / "model.yaml"), "--output", "json"]
        subprocess.run(words, env=env, check=True, stdout=subprocess.DEVNULL)
    finally:
        subprocess.run([*_CLI, "local", "down"], env=env, check=True, stdout=subprocess.DEVNULL)
    (path,) = (folder / "home" / "runs").glob("*/record.json")
    record: dict[str, Any] = json.loads(path.read_text())
    return record


def gaps(record: dict[str, Any]) -> dict[str, float]:
    """Return the seconds before each step, in which no step did its work; and after the last."""
    steps = sorted(record["steps"], key=lambda step: step["started_at"])
    found, since = {}, record["started_at"]
    for step in steps:
        found[step["step"]] = step["started_at"] - since
        since = step["started_at"] + step["seconds"]
    return {**found, "(end)": record["started_at"] + record["wall_s"] - since}


def measure(port: int) -> dict[str, Any]:
    """Return seconds per run, per task and per gap, of every round."""
    rounds = []
    for number in range(ROUNDS):
        with tempfile.TemporaryDirectory(prefix="penstock-bench-") as scratch:
            record = run_once(Path(scratch), port)
        between = gaps(record)
        tasks = len(record["steps"])
        start = between[record["steps"][0]["step"]]
        rounds.append(
            {
                "wall_s": record["wall_s"],
                "tasks": tasks,
                "start_s": start,
                "per_task_s": (sum(between.values()) - start) / tasks,
                "per_task_with_start_s": sum(between.values()) / tasks,
                "gaps_s": between,
                "work_s": {s["step"]: s["seconds"] for s in record["steps"]},
            }
        )
        print(f"round {number + 1}: {rounds[-1]['per_task_s']:.2f} s per task", flush=True)
    middle = {
        key: statistics.median(r[key] for r in rounds)
        for key in ("wall_s", "start_s", "per_task_s", "per_task_with_start_s")
    }
    return {"median": middle, "rounds": rounds}


def main() -> None:
    """Measure, print, and write JSON and Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("out/benchmarks"))
    parser.add_argument("--port", type=int, default=18790, help="A free port for the gateway.")
    arguments = parser.parse_args()
    out: Path = arguments.out
    found = measure(arguments.port)
    out.mkdir(parents=True, exist_ok=True)
    (out / "pipeline.json").write_text(json.dumps(found, indent=1) + "\n")
    middle, steps = found["median"], found["rounds"][0]["gaps_s"]
    rows = "".join(
        f"| {name} | {statistics.median(r['gaps_s'][name] for r in found['rounds']):.2f} | "
        f"{statistics.median(r['work_s'].get(name, 0.0) for r in found['rounds']):.2f} |\n"
        for name in steps
    )
    table = (
        f"Overhead per task {middle['per_task_s']:.2f} s (goal {GOAL_S}); with the start of the "
        f"run, {middle['start_s']:.1f} s once, {middle['per_task_with_start_s']:.2f} s. Medians of "
        f"{ROUNDS} rounds.\n\n| step | before it, s | its own work, s |\n|---|---|---|\n{rows}"
    )
    (out / "pipeline.md").write_text(table)
    print(table, end="")


if __name__ == "__main__":
    main()
