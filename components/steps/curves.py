"""The evidence of a rollout over time, as one SVG: e-values, their bounds, phases, and traffic."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby
from typing import Any, NamedTuple

Point = Mapping[str, Any]
"""A look at the rollout: s, phase, held, weight, rollback, proofs, reason; e-values as ln."""

STYLE = """
:root{--held:#fbe3b3;--m0:#2b6cb0;--m1:#b45309;--m2:#7c3aed;--m3:#0f766e;--m4:#be185d;--m5:#4b5563}
@media (prefers-color-scheme:dark){:root{--held:#4f3c12;--m0:#6cb0f5;--m1:#f0a94b;--m2:#b79cf7;
--m3:#4fd1c5;--m4:#f687b3;--m5:#cbd5e0}}
svg .end{text-anchor:end}svg .middle{text-anchor:middle}svg .strong{font-weight:600}
rect.band{fill:none}rect.band.even{fill:var(--panel)}rect.band.held{fill:var(--held)}
.edge,.grid{stroke:var(--line)}.grid{stroke-dasharray:1 3}
.name{paint-order:stroke;stroke:var(--paper);stroke-width:4px;stroke-linejoin:round}
polyline{fill:none;stroke-width:2;stroke-linejoin:round;stroke-linecap:round}
.accused{stroke:var(--bad);stroke-width:2.5}
.weakest{stroke:var(--ink);stroke-width:8;stroke-opacity:.2}
.proven{stroke:var(--good);stroke-dasharray:4 3}
.weight{fill:var(--mark);fill-opacity:.25;stroke:var(--mark);stroke-width:1.5}
.m0{stroke:var(--m0)}.m1{stroke:var(--m1);stroke-dasharray:7 3}.m2{stroke:var(--m2);
stroke-dasharray:2 4}.m3{stroke:var(--m3)}.m4{stroke:var(--m4);stroke-dasharray:7 3}.m5{
stroke:var(--m5);stroke-dasharray:2 4}
"""

_WIDTH, _LEFT, _RIGHT = 480, 64, 476
_LINE, _NAME_ROWS, _LETTER = 18, 5, 9  # a wide letter of the largest font
_COLOURS = 6
_LAST = 0.03  # of the time shown: what the last phase gets, which is over when it begins
_STEPS_S = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400)
_DAY_S = 86_400


@dataclass(frozen=True, slots=True)
class Band:
    """A stretch of time between two decisions."""

    start_s: float
    end_s: float
    phase: str
    held: str
    """Why it was held; empty when it was not."""

    weight: int
    reason: str

    @property
    def told(self) -> str:
        """The phase in words, and whether it was held."""
        phase = self.phase.replace("_", " ")
        return f"{phase}, held ({self.held})" if self.held else phase

    @property
    def place(self) -> str:
        """The phase, or the step of the ramp."""
        return f"ramp {self.weight} %" if self.phase == "ramp" else self.phase.replace("_", " ")


def bands(curve: Sequence[Point]) -> list[Band]:
    """Return what was decided, in order: one band per change of phase, weight or hold."""
    firsts = [next(group) for _, group in groupby(curve, _decided)]
    ends = [p["s"] for p in firsts[1:]] + [p["s"] for p in curve[-1:]]
    return [
        Band(p["s"], end, p["phase"], p["held"], p["weight"], p["reason"])
        for p, end in zip(firsts, ends, strict=True)
    ]


def evidence(
    curve: Sequence[Point],
    bounds: Mapping[str, float],
    wanted: Callable[[str, str], bool],
    title: str,
) -> str:
    """Return the curves of a rollout; empty when nothing was seen.

    Args:
        curve: What was seen, in order.
        bounds: E-values that demand a rollback and that prove: `rollback`, `proof`.
        wanted: Whether a phase asks a metric for proof; the weakest is one that was asked.
        title: For those who do not see it.
    """
    if not curve:
        return ""
    decided = bands(curve)
    x = _scale(curve)
    names, top = _names(decided, x)
    rollback, proof = (math.log10(bounds[key]) for key in ("rollback", "proof"))
    accused = _panel(top + 22, 90, rollback, [_log10(p["rollback"]) for p in curve])
    spans = list(_proofs(curve, wanted))
    values = [v for span in spans for _, found in span for v in found.values()]
    proven = _panel(accused.bottom + 32, 150, proof, values)
    metrics = sorted({name for span in spans for _, found in span for name in found})
    key, under = _legend(metrics, proven.bottom + 24)
    weights = _Panel(under + 36, 50, 0, 100)
    drawn = [
        _backs(decided, x, accused.top - 20, weights.bottom),
        names,
        _axis(accused, rollback, "floor"),
        _heading(accused, f"E-value for a rollback: {bounds['rollback']:,.0f} demand it"),
        _line("accused", [(x(p["s"]), accused.y(_log10(p["rollback"]))) for p in curve]),
        _axis(proven, proof, "proven"),
        _heading(proven, f"Proof: every metric asked needs {bounds['proof']:,.0f}"),
        *(_proof_lines(span, metrics, x, proven) for span in spans),
        "" if metrics else _text(_LEFT + 6, proven.top + 40, "no proof was asked for", "told name"),
        key,
        _heading(weights, "Traffic on the candidate, %"),
        _weights(curve, x, weights),
        _times(curve[-1]["s"] - curve[0]["s"], curve[0]["s"], x, weights.bottom),
    ]
    return _svg(drawn, weights.bottom + 24, title)


def _svg(drawn: Sequence[str], height: float, title: str) -> str:
    return (
        f'<svg viewBox="0 0 {_WIDTH} {height:.0f}" role="img"><title>{escape(title)}</title>'
        f"{''.join(drawn)}</svg>"
    )


class _Panel(NamedTuple):
    top: float
    height: float
    low: float
    high: float
    beyond: tuple[bool, bool] = (False, False)
    """Whether values lie below and above it; they are drawn at its edge."""

    @property
    def bottom(self) -> float:
        return self.top + self.height

    def y(self, value: float) -> float:
        inside = min(max(value, self.low), self.high)
        return self.bottom - (inside - self.low) / (self.high - self.low) * self.height


_Span = list[tuple[float, dict[str, float]]]
"""Seconds, and log10 of the e-values of the metrics that are asked for proof."""


def _decided(point: Point) -> tuple[str, int, str]:
    return point["phase"], point["weight"], point["held"]


def _log10(natural: float) -> float:
    return natural / math.log(10)


def _scale(curve: Sequence[Point]) -> Callable[[float], float]:
    start = curve[0]["s"]
    span = (curve[-1]["s"] - start or 1.0) * (1 + _LAST)
    return lambda s: _LEFT + (s - start) / span * (_RIGHT - _LEFT)


def _panel(top: float, height: float, bound: float, values: Sequence[float]) -> _Panel:
    """Return decades around 1 and the bound: what is far beyond them needs no precision."""
    least, most = min(values, default=0.0), max(values, default=0.0)
    low, high = max(-2, min(-1, math.floor(least))), math.ceil(bound) + 1
    return _Panel(top, height, low, high, (least < low, most > high))


def _proofs(curve: Sequence[Point], wanted: Callable[[str, str], bool]) -> Iterator[_Span]:
    """Yield what is to be proven, phase by phase; a hold does not begin it anew."""
    for (phase, _), points in groupby(curve, lambda p: (p["phase"], p["weight"])):
        span = [
            (p["s"], {m: _log10(e) for m, e in p["proofs"].items() if wanted(phase, m)})
            for p in points
        ]
        if any(found for _, found in span):
            yield span


def _proof_lines(
    span: _Span, metrics: Sequence[str], x: Callable[[float], float], panel: _Panel
) -> str:
    weakest = [(x(s), panel.y(min(found.values()))) for s, found in span if found]
    lines = [
        _line(
            f"m{i % _COLOURS}",
            [(x(s), panel.y(found[name])) for s, found in span if name in found],
        )
        for i, name in enumerate(metrics)
    ]
    return _line("weakest", weakest) + "".join(lines)


def _line(kind: str, places: Sequence[tuple[float, float]]) -> str:
    if not places:
        return ""
    seen = [*places, *places] if len(places) == 1 else places  # a line of one point is not drawn
    at = " ".join(f"{x:.1f},{y:.1f}" for x, y in seen)
    return f'<polyline class="{kind}" points="{at}"/>'


def _text(x: float, y: float, text: str, kind: str = "") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}">{escape(text)}</text>'


def _across(kind: str, y: float) -> str:
    return f'<line class="{kind}" x1="{_LEFT}" x2="{_RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'


def _heading(panel: _Panel, text: str) -> str:
    return _text(_LEFT + 4, panel.top - 6, text, "strong name")


def _names(decided: Sequence[Band], x: Callable[[float], float]) -> tuple[str, float]:
    """Return the bands' names, in as many rows as they need, and where the rows end.

    Where all rows are taken the name is left out: the table beside the plot has it.
    """
    free, placed = [0.0] * _NAME_ROWS, []
    for start_s, name in _new(decided):
        width, edge = len(name) * _LETTER, x(start_s)
        fits = edge + width <= _RIGHT
        left = edge if fits else max(0.0, _RIGHT - width)
        row = next((r for r, end in enumerate(free) if left >= end), None)
        if row is not None:
            free[row] = left + width + 4
            placed.append((edge, row, name, fits))
    bottom = sum(end > 0 for end in free) * _LINE + 4.0
    leaders = [
        f'<line class="edge" x1="{edge:.1f}" x2="{edge:.1f}" y1="{row * _LINE + 4}" '
        f'y2="{bottom:.0f}"/>'
        for edge, row, _, _ in placed
    ]
    names = [
        _text(edge + 3, row * _LINE + 15, name, "told name")
        if fits
        else _text(_RIGHT, row * _LINE + 15, name, "told name end")
        for edge, row, name, fits in placed
    ]
    return "".join(leaders + names), bottom


def _new(decided: Sequence[Band]) -> Iterator[tuple[float, str]]:
    """Yield when a name begins: a hold is named by its doubt, and its end not at all."""
    place = ""
    for band in decided:
        if band.place != place:
            yield band.start_s, band.place
        elif band.held:
            yield band.start_s, f"held ({band.held})"
        place = band.place


def _backs(decided: Sequence[Band], x: Callable[[float], float], top: float, bottom: float) -> str:
    drawn = []
    for i, band in enumerate(decided):
        left = x(band.start_s)
        right = x(band.end_s) if band is not decided[-1] else _RIGHT
        kind = "held" if band.held else "even" if i % 2 == 0 else "odd"
        drawn.append(
            f'<rect class="band {kind}" x="{left:.1f}" y="{top:.0f}" width="{right - left:.1f}" '
            f'height="{bottom - top:.0f}"/><line class="edge" x1="{left:.1f}" x2="{left:.1f}" '
            f'y1="{top:.0f}" y2="{bottom:.0f}"/>'
        )
    return "".join(drawn)


def _axis(panel: _Panel, bound: float, kind: str) -> str:
    """Return decades and the bound; decades too near to the bound give way to its number."""
    drawn = []
    for decade in range(int(panel.low), int(panel.high) + 1):
        y = panel.y(decade)
        drawn.append(_across("grid", y))
        if abs(decade - bound) > 0.5:
            below, above = panel.beyond
            sign = "≤" if below and decade == panel.low else ""
            sign = "≥" if above and decade == panel.high else sign
            told = f"{sign}{10**decade:,}" if decade >= 0 else f"{sign}{10.0**decade:g}"
            drawn.append(_text(_LEFT - 6, y + 5, told, "told end"))
    y = panel.y(bound)
    drawn += [_across(kind, y), _text(_LEFT - 6, y + 5, f"{10**bound:,.0f}", "strong end")]
    return "".join(drawn)


def _legend(metrics: Sequence[str], top: float) -> tuple[str, float]:
    """Return names and their lines, in rows, and where the rows end."""
    entries = [("weakest", "the weakest")] if metrics else []
    entries += [(f"m{i % _COLOURS}", name) for i, name in enumerate(metrics)]
    drawn, x, y = [], float(_LEFT), top
    for kind, name in entries:
        width = 34 + len(name) * _LETTER
        if x > _LEFT and x + width > _RIGHT:
            x, y = float(_LEFT), y + _LINE
        drawn += [_line(kind, [(x + 2, y - 5), (x + 22, y - 5)]), _text(x + 28, y, name, "told")]
        x += width + 8
    return "".join(drawn), y


def _weights(curve: Sequence[Point], x: Callable[[float], float], panel: _Panel) -> str:
    corners, before = [(float(_LEFT), panel.bottom)], panel.bottom
    for point in curve:
        y = panel.y(point["weight"])
        corners += [(x(point["s"]), before), (x(point["s"]), y)] if y != before else []
        before = y
    corners += [(float(_RIGHT), before), (float(_RIGHT), panel.bottom)]
    at = " ".join(f"{left:.1f},{y:.1f}" for left, y in corners)
    ticks = [_text(_LEFT - 6, panel.y(v) + 5, str(v), "told end") for v in (0, 50, 100)]
    grid = [_across("grid", panel.y(v)) for v in (0, 50, 100)]
    return "".join([*grid, *ticks, f'<polygon class="weight" points="{at}"/>'])


def _times(span_s: float, start_s: float, x: Callable[[float], float], top: float) -> str:
    step = next((s for s in _STEPS_S if span_s / s <= 6), _DAY_S * math.ceil(span_s / 6 / _DAY_S))
    unit, name = (3600, "h") if step >= 3600 else (60, "min") if step >= 60 else (1, "s")
    drawn = []
    for i in range(int(span_s / step) + 1):
        told = f"{i * step / unit:g} {name}"
        middle = min(x(start_s + i * step), _WIDTH - len(told) * _LETTER / 2)
        drawn.append(_text(middle, top + 18, told, "told middle"))
    return "".join(drawn)
