"""Small SVG plots, as text: colours come from the page, so they follow its dark mode."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_ROW, _LABEL, _WIDTH = 26, 100, 480


@dataclass(frozen=True, slots=True)
class Bar:
    """A stretch of time, or a share with its interval."""

    label: str
    start: float
    end: float
    told: str
    """Text at the end of the row."""

    kind: str = "done"
    """CSS class."""


def timeline(bars: Sequence[Bar]) -> str:
    """Return one row per step; the axis is the run's time."""
    if not bars:
        return ""
    start = min(b.start for b in bars)
    span = max(b.end for b in bars) - start or 1.0
    room = _WIDTH - _LABEL - 70
    rows = []
    for i, bar in enumerate(bars):
        x = _LABEL + (bar.start - start) / span * room
        width = max(2.0, (bar.end - bar.start) / span * room)
        y = i * _ROW
        rows.append(
            f'<text x="0" y="{y + 17}">{escape(bar.label)}</text>'
            f'<rect class="{bar.kind}" x="{x:.1f}" y="{y + 5}" width="{width:.1f}" height="16" '
            f'rx="3"/><text class="told" x="{x + width + 6:.1f}" y="{y + 17}">'
            f"{escape(bar.told)}</text>"
        )
    return _svg(rows, len(bars), "Timeline of the steps")


def intervals(rows: Sequence[tuple[str, float, float, float]], floor: float | None) -> str:
    """Return a share with its interval per row; `floor` draws the demanded share.

    Args:
        rows: Label, low, share, high; shares from 0 to 1.
        floor: Share that is demanded, or None.
    """
    room = _WIDTH - _LABEL - 70
    drawn = []
    for i, (label, low, share, high) in enumerate(rows):
        y = i * _ROW + 13
        left, middle, right = (_LABEL + v * room for v in (low, share, high))
        drawn.append(
            f'<text x="0" y="{y + 4}">{escape(label)}</text>'
            f'<line class="axis" x1="{_LABEL}" x2="{_LABEL + room}" y1="{y}" y2="{y}"/>'
            f'<line class="interval" x1="{left:.1f}" x2="{right:.1f}" y1="{y}" y2="{y}"/>'
            f'<circle class="point" cx="{middle:.1f}" cy="{y}" r="5"/>'
            f'<text class="told" x="{_LABEL + room + 12}" y="{y + 4}">{share:.1%}</text>'
        )
    if floor:
        x = _LABEL + floor * room
        drawn.append(
            f'<line class="floor" x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{len(rows) * _ROW}"/>'
        )
    return _svg(drawn, len(rows), "Exact match per skill with 95 % intervals")


def _svg(rows: Sequence[str], count: int, title: str) -> str:
    height = count * _ROW + 4
    return (
        f'<svg viewBox="0 0 {_WIDTH} {height}" role="img"><title>{escape(title)}</title>'
        f"{''.join(rows)}</svg>"
    )
