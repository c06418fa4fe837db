"""What is shown of a training: curves, and what it was made from; pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

STYLE = """
svg .end{text-anchor:end}polyline.loss,polyline.eval,polyline.rate{fill:none;stroke-width:2;
stroke-linejoin:round}.loss{stroke:var(--mark)}.eval{stroke:var(--bad);stroke-dasharray:6 3}
.rate{stroke:var(--soft)}.key{stroke-width:2}
"""
Table = Callable[[Sequence[str] | None, Sequence[Sequence[str]]], str]
Points = Sequence[Mapping[str, float]]

_LEFT, _RIGHT, _TALL = 56.0, 470.0, 150.0
_MOST = 400
"""Points drawn of a curve."""


def section(found: Mapping[str, Any], table: Table) -> str:
    """Return headline, curves and facts.

    Args:
        found: What the step `train` left.
        table: Draws a table from its head and rows.
    """
    lead = f'<p class="lead">{escape(headline(found))}</p>'
    return f"{lead}{curves(found['curve'])}{table(None, _facts(found))}"


def headline(found: Mapping[str, Any]) -> str:
    """Return what came of it in one sentence."""
    held = found["eval_loss"]
    beside = f", {held:.3f} on {found['held_out']} rows held out" if held is not None else ""
    how = "found, trained before" if found["found"] else f"trained in {found['train_s']:.0f} s"
    return (
        f"{found['strategy']['method']}: {how}; {found['steps']:,} steps on {found['rows']:,} "
        f"rows; loss {found['first_loss']:.3f} to {found['loss']:.3f}{beside}"
    )


def curves(points: Points) -> str:
    """Return loss over steps, of what was learnt and what was held out, and the learning rate."""
    losses, evals, rates = (
        _thin([(p["step"], p[name]) for p in points if name in p])
        for name in ("loss", "eval_loss", "learning_rate")
    )
    if not losses:
        return ""
    last = max(step for step, _ in (*losses, *evals))
    values = [value for _, value in (*losses, *evals)]
    low, high = min(0.0, *values), max(*values, 1e-9)
    top = max((rate for _, rate in rates), default=0.0) or 1.0
    drawn = [
        _frame(20, _TALL, f"{high:.3g}", f"{low:.3g}"),
        _line("loss", losses, last, (20, _TALL), (low, high)),
        _line("eval", evals, last, (20, _TALL), (low, high)),
        _key("loss", "loss", _LEFT + 8),
        _key("eval", "loss on rows held out", _LEFT + 90) if evals else "",
        _frame(206, 40, f"{top:.2g}", "0"),
        _line("rate", rates, last, (206, 40), (0.0, top)),
        f'<text class="told" x="{_LEFT + 8}" y="200">learning rate</text>',
        f'<text class="told end" x="{_RIGHT}" y="266">{last:,.0f} steps</text>',
    ]
    title = "Loss per token of the answers, and learning rate, over the optimizer's steps"
    return f'<svg viewBox="0 0 480 272" role="img"><title>{title}</title>{"".join(drawn)}</svg>'


def _facts(found: Mapping[str, Any]) -> list[list[str]]:
    strategy = found["strategy"]
    lora = strategy.get("lora") or {}
    adapter = ", ".join(f"{key} {value}" for key, value in lora.items() if value is not None)
    resumed = found["resumed_at"]
    device = found["device"].partition(":")[0]
    libraries = ", ".join(f"{name} {version}" for name, version in found["libraries"].items())
    return [
        ["base", found["base_root"]],
        ["trained checkpoint", found["root"]],
        ["training set", f"{found['data']}: {found['rows']:,} rows, {found['held_out']:,} apart"],
        ["method", f"{strategy['method']}{f' ({adapter})' if adapter else ''}"],
        ["parameters trained", f"{found['trained_parameters']:,}"],
        ["learning rate", f"{found['rate']:g}"],
        ["seed", str(strategy["seed"])],
        ["speed", f"{found['tokens_per_s']:,.0f} tokens/s on {found['processes']} {device}"],
        ["peak memory", f"{found['peak_bytes'] / 1e9:.2f} GB"],
        ["resumed", f"at step {resumed:,}" if resumed else "no"],
        ["MLflow run", found["tracking_run"]],
        ["libraries", libraries],
    ]


def _thin(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return at most `_MOST` of the points that can be drawn, the last one among them."""
    shown = [point for point in points if math.isfinite(point[1])]
    stride = max(1, math.ceil(len(shown) / _MOST))
    return [*shown[:-1][::stride], *shown[-1:]]


def _line(
    kind: str,
    points: Sequence[tuple[float, float]],
    last: float,
    panel: tuple[float, float],
    bounds: tuple[float, float],
) -> str:
    if not points:
        return ""
    (top, tall), (low, high) = panel, bounds
    at = " ".join(
        f"{_LEFT + step / max(last, 1) * (_RIGHT - _LEFT):.1f},"
        f"{top + (high - value) / (high - low) * tall:.1f}"
        for step, value in points
    )
    return f'<polyline class="{kind}" points="{at}"/>'


def _frame(top: float, tall: float, high: str, low: str) -> str:
    bottom = top + tall
    return (
        f'<line class="axis" x1="{_LEFT}" x2="{_LEFT}" y1="{top}" y2="{bottom}"/>'
        f'<line class="axis" x1="{_LEFT}" x2="{_RIGHT}" y1="{bottom}" y2="{bottom}"/>'
        f'<text class="told end" x="{_LEFT - 6}" y="{top + 6}">{high}</text>'
        f'<text class="told end" x="{_LEFT - 6}" y="{bottom}">{low}</text>'
    )


def _key(kind: str, name: str, x: float) -> str:
    return (
        f'<line class="{kind} key" x1="{x}" x2="{x + 20}" y1="10" y2="10"/>'
        f'<text class="told" x="{x + 26}" y="14">{name}</text>'
    )
