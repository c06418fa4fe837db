"""Small SVG plots, as text: colours come from the page, so they follow its dark mode."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_ROW, _LABEL, _WIDTH = 26, 112, 480


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


@dataclass(frozen=True, slots=True)
class Dot:
    """One checkpoint: how large, how good, and how fast."""

    label: str
    size: float
    """Relative to the largest, or in any unit."""

    score: float
    """Share of right answers, 0 to 1."""

    told: str
    """What is said beside it, such as its speed."""

    kind: str
    """CSS class: `kept`, `accept`, `refuse`, `insufficient`."""

    front: bool
    """Whether no other is smaller and as good, or better and as small."""


def tradeoff(dots: Sequence[Dot]) -> str:
    """Return size (across) against score (up); the Pareto front is a line.

    Labels stand in rows below, numbered as the dots are, so that dots close together stay legible.
    """
    left, room, tall = 46.0, _WIDTH - 66.0, 170.0
    most = max(d.size for d in dots)
    low, high = min(d.score for d in dots), max(d.score for d in dots)
    margin = max(0.01, (high - low) * 0.15)
    low, high = max(0.0, low - margin), min(1.0, high + margin)

    def x(dot: Dot) -> float:
        return left + dot.size / most * room

    def y(dot: Dot) -> float:
        return 8 + (high - dot.score) / (high - low) * tall

    drawn = [
        f'<line class="axis" x1="{left}" x2="{left}" y1="8" y2="{8 + tall}"/>'
        f'<line class="axis" x1="{left}" x2="{left + room}" y1="{8 + tall}" y2="{8 + tall}"/>'
        f'<text class="told" x="0" y="16">{high:.0%}</text>'
        f'<text class="told" x="0" y="{8 + tall}">{low:.0%}</text>'
        f'<text class="told" x="{left}" y="{26 + tall}">size →</text>'
    ]
    front = sorted((d for d in dots if d.front), key=lambda d: d.size)
    path = " ".join(f"{x(d):.1f},{y(d):.1f}" for d in front)
    drawn.append(f'<polyline class="front" points="{path}"/>')
    top = 8 + tall + 2 * _ROW
    for number, dot in enumerate(dots, start=1):
        row = top + (number - 1) * _ROW
        drawn.append(
            f'<circle class="dot {dot.kind}" cx="{x(dot):.1f}" cy="{y(dot):.1f}" r="9"/>'
            f'<text class="number" x="{x(dot):.1f}" y="{y(dot) + 4:.1f}">{number}</text>'
            f'<circle class="dot {dot.kind}" cx="12" cy="{row}" r="9"/>'
            f'<text class="number" x="12" y="{row + 4}">{number}</text>'
            f'<text x="30" y="{row + 4}">{escape(dot.label)}</text>'
            f'<text class="told" x="250" y="{row + 4}">{escape(dot.told)}</text>'
        )
    height = int(top + len(dots) * _ROW)
    title = "Size against share of right answers; the line joins what nothing else beats in both"
    return (
        f'<svg viewBox="0 0 {_WIDTH} {height}" role="img"><title>{escape(title)}</title>'
        f"{''.join(drawn)}</svg>"
    )


def _svg(rows: Sequence[str], count: int, title: str) -> str:
    height = count * _ROW + 4
    return (
        f'<svg viewBox="0 0 {_WIDTH} {height}" role="img"><title>{escape(title)}</title>'
        f"{''.join(rows)}</svg>"
    )
