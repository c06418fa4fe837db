"""What chaos did, as figures: a line of JSON per rollout, and a table of all of them."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path

FOLDER = "PENSTOCK_CHAOS_OUT"
"""Environment variable: where to."""

_LINES, _TABLE = "chaos.jsonl", "chaos.md"
_HEAD = [
    "| Disturbance | Mechanism | Candidate | Runs | Decisions | Held | Harm / requests | Seconds |",
    "|---|---|---|---|---|---|---|---|",
]


@dataclass(frozen=True, slots=True)
class Result:
    """One rollout that was disturbed."""

    disturbance: str
    moment: str
    mode: str
    story: str
    decision: str
    reason: str
    held: list[str]
    """Doubts it was held for on the way, and why."""

    harm: int
    """Users' requests that failed since it was disturbed, those aside that the candidate failed on
    purpose."""

    failures: list[str]
    asked: int
    seconds: float
    """From the beginning to the decision."""


def note(result: Result) -> None:
    """Add a result where the environment says, if it does."""
    folder = os.environ.get(FOLDER)
    if not folder:
        return
    lines = Path(folder) / _LINES
    lines.parent.mkdir(parents=True, exist_ok=True)
    with lines.open("a") as file:
        file.write(json.dumps(asdict(result)) + "\n")
    found = [Result(**json.loads(line)) for line in lines.read_text().splitlines()]
    (Path(folder) / _TABLE).write_text("\n".join(table(found)) + "\n")


def table(results: list[Result]) -> list[str]:
    """Return a Markdown table, a row for each disturbance, mechanism and candidate."""
    rows: dict[tuple[str, str, str], list[Result]] = defaultdict(list)
    for result in results:
        rows[result.disturbance, result.mode, result.story].append(result)
    return [*_HEAD, *(_row(key, rows[key]) for key in sorted(rows))]


def _row(key: tuple[str, str, str], results: list[Result]) -> str:
    decisions = [result.decision for result in results]
    counted = ", ".join(f"{decisions.count(each)} {each}" for each in sorted(set(decisions)))
    held = sum(bool(result.held) for result in results)
    harm, asked = sum(r.harm for r in results), sum(r.asked for r in results)
    seconds = sorted(result.seconds for result in results)
    return (
        f"| {' | '.join(key)} | {len(results)} | {counted} | {held} | {harm} / {asked:,} "
        f"| {seconds[0]:.0f}-{seconds[-1]:.0f} |"
    )
