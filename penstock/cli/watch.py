"""Shows a run while it goes on: a live table in a terminal, a line per step elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import click

from penstock.core.runs import StepRecord
from pipelines.runner import Sight

_MARKS = {"done": "✓", "reused": "=", "failed": "✗", "interrupted": "!", "running": "…"}


class Lines:
    """One line when a step ends."""

    def __init__(self) -> None:
        self._told: set[str] = set()

    def __call__(self, sight: Sight) -> None:
        """Tell what ended since the last call."""
        for step in sight.steps:
            if step.outcome != "running" and step.step not in self._told:
                self._told.add(step.step)
                click.echo(f"  {_MARKS[step.outcome]} {line(step)}")


@contextmanager
def watching(steps: Sequence[str], *, terminal: bool) -> Iterator[Any]:
    """Yield what `execute` calls with every sight of the run."""
    if not terminal:
        yield Lines()
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("  {task.fields[mark]} {task.description:<11}"),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[told]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, transient=True) as progress:
        rows = {s: progress.add_task(s, start=False, total=1, mark=" ", told="") for s in steps}
        lines = Lines()

        def show(sight: Sight) -> None:
            lines(sight)
            for step in sight.steps:
                if step.step not in rows:
                    continue
                row = rows[step.step]
                if step.outcome != "running":
                    progress.update(row, visible=False)
                    continue
                progress.start_task(row)
                told = sight.progress or {"done": 0, "total": None, "unit": ""}
                progress.update(
                    row,
                    total=told["total"],
                    completed=told["done"],
                    mark=_MARKS["running"],
                    told=f"{told['done']:,.0f}/{told['total']:,.0f} {told['unit']}"
                    if told["total"]
                    else "",
                )

        yield show


def line(step: StepRecord) -> str:
    """Return a step as one line: name, seconds, and what it found."""
    return f"{step.step:<11}{step.seconds:6.1f} s  {_found(step)}".rstrip()


def _found(step: StepRecord) -> str:  # noqa: C901 - one line per step, read top to bottom
    found = step.detail
    if step.outcome in ("failed", "interrupted"):
        return step.failure.message.splitlines()[0] if step.failure else step.outcome
    match step.step:
        case "detect_changes":
            told = f"{found['outcome']}: {found['reason']}"
        case "resolve":
            plan = found.get("plan", {}).get("told", "")
            told = f"{found['source']}{f': {plan}' if plan else ''}"
            told += f"\n{'':21}beware: {found['beware']}" if found.get("beware") else ""
        case "pull":
            told = f"{len(found['files'])} files, {found['size_bytes'] / 1e6:.1f} MB"
        case "scan":
            told = ", ".join(f"{g['name']} {g['outcome']}" for g in found["gates"])
        case "check_data":
            told = ", ".join(f"{s['name']} {s['rows']} rows" for s in found["suites"]) or "no data"
        case "evaluate":
            told = found["verdict"]["reason"]
        case "register":
            told = f"{found['model']} version {found['version']}"
        case "deploy":
            ready_s = found["ready_s"]
            unseen = "written" if found["weights"].get(found["service"]) else "a candidate"
            after = f"{unseen}, without traffic" if ready_s is None else f"ready, {ready_s:.1f} s"
            told = f"{found['service']}: {after}"
        case "quantize" | "rollout":
            told = found["reason"]
        case _:
            told = ""
    return f"{told} (reused)" if step.outcome == "reused" else told
