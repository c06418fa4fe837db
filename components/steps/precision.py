"""The report's part about quantization: what was tried, what it cost, and what was kept; pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

from components.steps.plots import Dot, tradeoff

STYLE = """
.front{fill:none;stroke:var(--mark);stroke-width:2}.dot{fill:var(--reuse)}
.dot.accept{fill:var(--good)}.dot.refuse{fill:var(--bad)}.dot.kept{fill:var(--mark)}
.number{fill:var(--paper);text-anchor:middle;font-size:11px}
.badge.kept,.badge.skipped{background:var(--reuse)}
"""

Table = Callable[[Sequence[str] | None, Sequence[Sequence[str]]], str]


def section(found: Mapping[str, Any], table: Table) -> str:
    """Return the section's HTML.

    Args:
        found: What the step `quantize` left: `outcome`, `reason`, `parent` and `tried`.
        table: Draws a table from its head and rows.
    """
    outcome = escape(found["outcome"])
    badge = f'<span class="badge {outcome}">{outcome}</span>'
    head = f'<p class="lead">{badge} {escape(found["reason"])}</p>'
    tried: Sequence[Mapping[str, Any]] = found.get("tried", ())
    if not tried:
        return head
    made = [each for each in tried if each.get("size_bytes")]
    picture = tradeoff(_dots(found["parent"], made)) if made else ""
    return f"{head}{picture}{_costs(tried, table)}{_judged(made, table)}"


def _dots(parent: Mapping[str, Any], made: Sequence[Mapping[str, Any]]) -> list[Dot]:
    points = [{**parent, "label": "parent", "outcome": "kept"}, *made]
    beaten = {
        id(one)
        for one in points
        for other in points
        if other["size_bytes"] <= one["size_bytes"]
        and other["score"] >= one["score"]
        and (other["size_bytes"], other["score"]) != (one["size_bytes"], one["score"])
    }
    return [
        Dot(
            each["label"],
            each["size_bytes"],
            each["score"],
            f"{each['size_bytes'] / 1e6:,.1f} MB, {each['score']:.1%}{_speed(each)}",
            each["outcome"],
            id(each) not in beaten,
        )
        for each in points
    ]


def _speed(each: Mapping[str, Any]) -> str:
    speed = each.get("tokens_per_cpu_s")
    return f", {speed:,.0f} tok/CPU-s" if speed else ""


def _costs(tried: Sequence[Mapping[str, Any]], table: Table) -> str:
    rows = [
        [
            each["label"],
            each["outcome"],
            each["reason"],
            f"{each['wall_s']:.1f} s" if each.get("wall_s") is not None else "-",
            f"{each['peak_bytes'] / 1e6:,.0f} MB" if each.get("peak_bytes") else "-",
        ]
        for each in tried
    ]
    return table(["recipe", "verdict", "why", "made in", "peak memory"], rows)


def _judged(made: Sequence[Mapping[str, Any]], table: Table) -> str:
    rows = []
    for each in made:
        verdict = each.get("verdict")
        if not verdict:
            continue
        measures = {m["name"]: m for m in verdict["measures"]}
        rows.append(
            [
                each["label"],
                f"{verdict['difference']:+.2%} ({verdict['low']:+.2%} to {verdict['high']:+.2%})",
                f"{verdict['smallest_margin']:.2%} of {verdict['margin']:.2%}",
                f"{verdict['power']:.0%}",
                *(_told(measures.get(name)) for name in MEASURES),
            ]
        )
    head = ["recipe", "difference", "smallest margin shown", "power", *MEASURES]
    return f"<h3>Against the parent, on the same items</h3>{table(head, rows)}" if rows else ""


MEASURES = ("mean KL", "99.9% KL", "same top token", "perplexity ratio")


def _told(measure: Mapping[str, Any] | None) -> str:
    return f"{measure['value']:.3g}" if measure else "-"
