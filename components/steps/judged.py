"""The report's part about a verdict on what was built for TensorRT-LLM; pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

Table = Callable[[Sequence[str] | None, Sequence[Sequence[str]]], str]


def section(found: Mapping[str, Any], table: Table) -> str:
    """Return the section's HTML.

    Args:
        found: What the step `judge_engine` left; without a verdict it says why there is none.
        table: Draws a table from its head and rows.
    """
    verdict = found.get("verdict")
    if verdict is None:
        return f"<p>Refused: {escape(found['refused'])}</p>" if "refused" in found else ""
    outcome = escape(verdict["outcome"])
    badge = f'<span class="badge {outcome}">{outcome}</span>'
    head = f'<p class="lead">{badge} {escape(verdict["reason"])}</p>'
    if "n" not in verdict:  # served as it came
        return head
    rows = [
        ["items that both answered", f"{verdict['n']:,}"],
        ["gained / lost", f"{verdict['gained']} / {verdict['lost']}"],
        [
            "difference (95 % one-sided)",
            f"{verdict['difference']:+.2%} ({verdict['low']:+.2%} to {verdict['high']:+.2%})",
        ],
        ["smallest margin shown", f"{verdict['smallest_margin']:.2%} of {verdict['margin']:.2%}"],
        ["power", f"{verdict['power']:.0%}"],
    ]
    rows += [[each["name"], f"{each['value']:.3g}"] for each in verdict["measures"]]
    if verdict["not_compared"]:
        rows.append(["distributions", f"not compared: {verdict['not_compared']}"])
    return f"{head}<h3>Against the parent, on the same items</h3>{table(None, rows)}"
