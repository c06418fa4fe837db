"""The table, to be read: a line per rule, a column per scenario."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.canary.scenarios import AT_MARGINS, Scenario

_MARGINS = {scenario.name for scenario in AT_MARGINS}


def text(rows: Sequence[dict[str, Any]], scenarios: Sequence[Scenario]) -> str:
    """Return good candidates, bad ones, and those exactly at Penstock's margins, as Markdown."""
    clear = [scenario for scenario in scenarios if scenario.name not in _MARGINS]
    parts = [
        (
            "Good candidates: false rollback % (+ undecided %) / minutes to promote, median",
            [scenario.name for scenario in clear if scenario.good],
        ),
        (
            "Bad candidates: missed % (+ undecided %) / minutes to roll back, median / users' "
            "requests to it until then, median",
            [scenario.name for scenario in clear if not scenario.good],
        ),
        (
            "Exactly at Penstock's margins: wrong % (+ undecided %) / minutes, median (no claim is "
            "made for the peers, whose margins are others)",
            [scenario.name for scenario in scenarios if scenario.name in _MARGINS],
        ),
    ]
    head = f"{rows[0]['reps']:,} replications each.\n"
    return "\n".join([head, *(_part(title, rows, names) for title, names in parts if names)])


def _part(title: str, rows: Sequence[dict[str, Any]], names: list[str]) -> str:
    """Return one table."""
    found = {(row["rule"], row["scenario"]): row for row in rows}
    rules = list(dict.fromkeys(row["rule"] for row in rows))
    lines = [f"{title}.\n", f"| rule | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for rule in rules:
        cells = [_cell(found[rule, name]) for name in names]
        lines.append(f"| {rule} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _cell(row: dict[str, Any]) -> str:
    """Return what one rule did in one scenario."""
    undecided = f" (+{row['undecided']:.1%})" if row["undecided"] else ""
    minutes = _number(row["minutes_p50"], 1)
    parts = [f"{row['wrong']:.1%}{undecided}".replace("%", ""), minutes]
    if row["bad_user_requests_mean_4h"] is not None:
        parts.append(_number(row["bad_user_requests_p50"], 0))
    return " / ".join(parts)


def _number(value: float | None, digits: int) -> str:
    """Return a figure, or a dash where there is none."""
    return "-" if value is None else f"{value:,.{digits}f}"
