from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Any
from xml.etree import ElementTree as ET

from components.steps.curves import Point, bands, evidence

BOUNDS = {"rollback": 100.0, "proof": 20.0}


def _look(s: float, phase: str, weight: int = 0, **more: Any) -> Point:
    base: dict[str, Any] = {"held": "", "rollback": 0.0, "proofs": {}, "reason": f"{phase} it is"}
    return {"s": s, "phase": phase, "weight": weight, **base, **more}


PROMOTED = [
    _look(0.0, "warmup"),
    _look(1.0, "shadow", proofs={"quality": 0.0, "ttft_p95": 0.0}),
    _look(2.0, "shadow", proofs={"quality": 2.5, "ttft_p95": 2.9}),
    _look(3.0, "ramp", 25, proofs={"quality": 0.0, "ttft_p95": 0.0}),
    _look(4.0, "ramp", 25, proofs={"quality": 0.0, "ttft_p95": 2.0}),
    _look(5.0, "ramp", 50),
    _look(6.0, "soak", 100),
    _look(7.0, "promoted", 100),
]
ROLLED_BACK = [
    _look(0.0, "shadow", proofs={"quality": 0.0}),
    _look(1.0, "shadow", proofs={"quality": -1.0}, rollback=3.0),
    _look(2.0, "rolling_back", rollback=40.0),
    _look(3.0, "rolled_back", rollback=40.0),
]
HELD = [
    _look(0.0, "shadow", proofs={"quality": 0.0}),
    _look(10.0, "shadow", proofs={"quality": 1.0}, held="stale"),
    _look(20.0, "shadow", proofs={"quality": 1.0}, held="stale"),
    _look(30.0, "shadow", proofs={"quality": 2.0}),
]


def _asked(phase: str, metric: str) -> bool:
    return phase == "shadow" or metric != "quality"


def _drawn(curve: list[Point], bounds: Mapping[str, float] = BOUNDS) -> ET.Element:
    return ET.fromstring(evidence(curve, bounds, _asked, "what was seen"))  # noqa: S314  # our own


def _of(svg: ET.Element, tag: str, kind: str) -> list[ET.Element]:
    return [e for e in svg.iter(tag) if kind in e.get("class", "").split()]


def _texts(svg: ET.Element) -> list[str]:
    return [e.text or "" for e in svg.iter("text")]


def _points(line: ET.Element) -> list[tuple[float, float]]:
    pairs = (at.split(",") for at in line.get("points", "").split())
    return [(float(x), float(y)) for x, y in pairs]


def test_every_change_of_phase_weight_or_hold_is_a_band() -> None:
    assert [(b.place, b.held, b.start_s, b.end_s) for b in bands(PROMOTED)] == [
        ("warmup", "", 0.0, 1.0),
        ("shadow", "", 1.0, 3.0),
        ("ramp 25 %", "", 3.0, 5.0),
        ("ramp 50 %", "", 5.0, 6.0),
        ("soak", "", 6.0, 7.0),
        ("promoted", "", 7.0, 7.0),
    ]
    assert [b.told for b in bands(HELD)] == ["shadow", "shadow, held (stale)", "shadow"]


def test_nothing_seen_is_nothing_drawn() -> None:
    assert bands([]) == []
    assert evidence([], BOUNDS, _asked, "none") == ""


def test_phases_are_named_and_the_step_says_its_weight() -> None:
    texts = _texts(_drawn(PROMOTED))
    for name in ("warmup", "shadow", "ramp 25 %", "ramp 50 %", "soak", "promoted"):
        assert name in texts
    assert {"rolling back", "rolled back"} <= set(_texts(_drawn(ROLLED_BACK)))


def test_both_bounds_are_drawn_where_their_e_value_is() -> None:
    svg = _drawn(ROLLED_BACK, {"rollback": 1000.0, "proof": 40.0})
    for kind, told in (("floor", "1,000"), ("proven", "40")):
        (line,) = _of(svg, "line", kind)
        (number,) = (t for t in _of(svg, "text", "strong") if t.text == told)
        assert abs(float(line.get("y1", "")) - float(number.get("y", ""))) < 8


def test_the_curve_of_a_guilty_one_crosses_its_bound_and_stops_at_the_edge() -> None:
    svg = _drawn(ROLLED_BACK)
    (bound,), (line,) = _of(svg, "line", "floor"), _of(svg, "polyline", "accused")
    before, after = _points(line)[1][1], _points(line)[2][1]
    assert before > float(bound.get("y1", "")) > after > 0
    assert "≥1,000" in _texts(svg)


def test_a_point_is_as_high_as_its_e_value() -> None:
    svg = _drawn([_look(0.0, "shadow"), _look(1.0, "shadow", rollback=math.log(100))])
    (bound,), (line,) = _of(svg, "line", "floor"), _of(svg, "polyline", "accused")
    assert abs(_points(line)[-1][1] - float(bound.get("y1", ""))) < 0.11


def test_the_weakest_is_one_that_was_asked_in_its_phase() -> None:
    svg = _drawn(PROMOTED)
    shadow, ramp, _legend = _of(svg, "polyline", "weakest")
    quality, ttft = _of(svg, "polyline", "m0"), _of(svg, "polyline", "m1")
    assert len(quality) == 2  # in shadow, and in the legend: nobody asks for it in the ramp
    assert _points(shadow) == _points(quality[0])
    assert _points(ramp) == _points(ttft[1])
    assert {"quality", "ttft_p95", "the weakest"} <= set(_texts(svg))


def test_a_hold_is_a_band_and_does_not_break_the_lines() -> None:
    svg = _drawn(HELD)
    (held,) = _of(svg, "rect", "held")
    assert float(held.get("width", "")) > 100
    assert _texts(svg).count("held (stale)") == 1
    assert _texts(svg).count("shadow") == 1
    assert len(_points(_of(svg, "polyline", "m0")[0])) == len(HELD)


def test_traffic_rises_in_steps_to_the_right_edge() -> None:
    (area,) = _of(_drawn(PROMOTED), "polygon", "weight")
    corners = _points(area)
    heights = sorted({y for _, y in corners})
    assert len(heights) == 4  # 0, 25, 50 and 100 %
    assert corners[-2][1] == heights[0]
    assert all(a[0] == b[0] or a[1] == b[1] for a, b in pairwise(corners))


def test_one_look_is_drawn() -> None:
    svg = _drawn([_look(3.0, "rolled_back")])
    assert "no proof was asked for" in _texts(svg)
    assert len(_points(_of(svg, "polyline", "accused")[0])) == 2


def test_foreign_names_are_text() -> None:
    curve = [_look(0.0, "<i>", proofs={"<b>&": 1.0}), _look(1.0, "shadow", held="<u>")]
    page = evidence(curve, BOUNDS, lambda _phase, _metric: True, "<title>")
    assert {"<b>&", "<i>"} <= set(_texts(ET.fromstring(page)))  # noqa: S314  # our own
    assert "<b>" not in page
    assert "<i>" not in page


def test_names_stay_inside_and_never_overlap() -> None:
    curve = [_look(float(i), "ramp", i + 1) for i in range(60)]
    svg = _drawn([*curve, _look(60.0, "promoted", 100)])
    names = [e for e in _of(svg, "text", "told") if (e.text or "").startswith("ramp")]
    assert 5 < len(names) < 60
    rows: dict[str, list[float]] = {}
    for name in names:
        assert float(name.get("x", "")) <= 476
        if "end" not in name.get("class", ""):
            rows.setdefault(name.get("y", ""), []).append(float(name.get("x", "")))
    for lefts in rows.values():
        assert all(b - a > 70 for a, b in pairwise(lefts))


def test_the_axis_of_time_has_few_numbers_whatever_the_span() -> None:
    for span, unit in ((0.4, " s"), (65.0, " s"), (3000.0, " min"), (30_000.0, " h"), (9e5, " h")):
        texts = _texts(_drawn([_look(0.0, "shadow"), _look(span, "shadow")]))
        assert 2 <= sum(t.endswith(unit) for t in texts) <= 8
