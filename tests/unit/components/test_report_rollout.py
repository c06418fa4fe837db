from __future__ import annotations

import re
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from components.steps.report import render
from penstock.core.runs import RunRecord, StepRecord

LOOK: dict[str, Any] = {"held": "", "weight": 0, "rollback": 0.0, "proofs": {}, "reason": "warm"}
CURVE = [
    {**LOOK, "s": 0.0, "phase": "shadow", "proofs": {"quality": 0.0}},
    {**LOOK, "s": 1.0, "phase": "shadow", "held": "stale", "reason": "no evidence for 130 s"},
    {**LOOK, "s": 130.0, "phase": "ramp", "weight": 25, "reason": "proven <b>in</b> shadow"},
    {**LOOK, "s": 8000.0, "phase": "soak", "weight": 100, "reason": "proven live"},
    {**LOOK, "s": 8060.0, "phase": "promoted", "weight": 100, "reason": "proven live"},
]
FIRST = {"outcome": "first", "reason": "nothing was served to compare with"}


def _found(candidate: str, outcome: str = "promoted", **more: Any) -> dict[str, Any]:
    return {
        "candidate": candidate,
        "stable": "skills-v1",
        "outcome": outcome,
        "reason": "proven live (464 live requests)",
        "decision_s": 66.4,
        "pairs": 1034,
        "user_requests_total": 2651,
        "user_requests_failed": 3,
        "user_requests_on_candidate": 693,
        "certificate": "/runs/of mine/certificate.json",
        "curve": CURVE,
        "bounds": {"rollback": 100.0, "proof": 20.0},
        **more,
    }


def _run(run_id: str, found: dict[str, Any] | None, **spec: Any) -> RunRecord:
    step = StepRecord(step="rollout", outcome="done", started_at=1.0, detail=found or {})
    return RunRecord(
        run_id=run_id,
        name="skills",
        started_at=1.0,
        wall_s=2.0,
        outcome="done",
        spec=spec,
        steps=(step,),
    )


def _titles(page: str) -> list[str]:
    return [t for t in re.findall("<h2>(.*?)</h2>", page) if t.startswith("Rollout")]


def _plots(page: str) -> list[ET.Element]:
    return [ET.fromstring(svg) for svg in re.findall("<svg.*?</svg>", page, re.DOTALL)]  # noqa: S314  # our own


@pytest.mark.parametrize(
    ("outcome", "badge", "sentence"),
    [
        ("promoted", "promoted", "skills-v2 took over from skills-v1: proven live"),
        ("rolled_back", "rolled back", "was rolled back, skills-v1 is served as before: proven"),
        ("unheard_of", "unheard of", "proven live (464 live requests)."),
    ],
)
def test_every_outcome_has_a_badge_a_sentence_and_curves(
    outcome: str, badge: str, sentence: str
) -> None:
    page = render(_run("r1", _found("skills-v2", outcome)))
    assert f'<span class="badge {outcome}">{badge}</span>' in page
    assert sentence in page
    assert _titles(page) == ["Rollout of skills-v2"]
    assert any("accused" in (e.get("class") or "") for e in _plots(page)[-1].iter())


def test_a_first_version_has_nothing_to_draw() -> None:
    page = render(_run("r1", FIRST))
    assert "Served as the first version: nothing was served to compare with." in page
    assert _titles(page) == ["Rollout"]
    assert len(_plots(page)) == 1  # the steps


def test_a_step_that_left_nothing_has_no_section() -> None:
    assert _titles(render(_run("r1", None))) == []


def test_every_decision_is_a_row() -> None:
    page = render(_run("r1", _found("skills-v2"))).replace("\N{NO-BREAK SPACE}", " ")
    rows = [re.findall("<td>(.*?)</td>", row) for row in re.findall("<tr>(.*?)</tr>", page)]
    decided = [row for row in rows if len(row) == 4]
    assert decided == [
        ["0.0 s", "shadow", "0 %", "warm"],
        ["1.0 s", "shadow, held (stale)", "0 %", "no evidence for 130 s"],
        ["2 min 10 s", "ramp", "25 %", "proven &lt;b&gt;in&lt;/b&gt; shadow"],
        ["2 h 13 min", "soak", "100 %", "proven live"],
        ["2 h 14 min", "promoted", "100 %", "as above"],
    ]


def test_numbers_and_the_way_to_check_them() -> None:
    page = render(_run("r1", _found("skills-v2"))).replace("\N{NO-BREAK SPACE}", " ")
    for told in ("66.4 s", "1,034", "2,651", "<td>3</td>", "693"):
        assert told in page
    command = "penstock rollout certificate verify &#x27;/runs/of mine/certificate.json&#x27;"
    assert command in page


def test_without_a_look_the_rest_is_told() -> None:
    page = render(_run("r1", _found("skills-v2", "rolled_back", curve=[])))
    assert "Nothing was seen of it." in page
    assert len(_plots(page)) == 1
    assert "2,651" in page


def test_a_rollout_whose_log_was_cut_has_no_certificate() -> None:
    page = render(_run("r1", {**_found("skills-v2", curve=[]), "certificate": ""}))
    assert "No certificate" in page
    assert "certificate verify" not in page


def test_the_spec_says_where_a_metric_must_prove_itself() -> None:
    ramp = [{**LOOK, "s": float(s), "phase": "ramp", "proofs": {"quality": 1.0}} for s in (0, 1)]
    metrics = {"quality": {"prove_in": ["shadow"]}}
    asked = render(_run("r1", _found("skills-v2", curve=ramp)))
    spared = render(_run("r1", _found("skills-v2", curve=ramp), rollout={"metrics": metrics}))
    assert ">quality</text>" in asked
    assert ">quality</text>" not in spared


def test_rollouts_of_further_runs_follow_in_order() -> None:
    others = [
        _run("r2", _found("skills-v2")),
        _run("r3", FIRST),
        _run("r4", _found("skills-<4>", "rolled_back")),
        _run("r5", None),
    ]
    page = render(_run("r1", FIRST), others)
    assert _titles(page) == ["Rollout", "Rollout of skills-v2", "Rollout of skills-&lt;4&gt;"]
    assert "run r2" in page
    assert "run r3" not in page
    assert len(_plots(page)) == 3


def test_the_run_itself_is_not_told_twice() -> None:
    run = _run("r1", _found("skills-v2"))
    assert render(run, [run]) == render(run)


def test_the_page_needs_nothing_from_elsewhere() -> None:
    page = render(_run("r1", _found("skills-v2")), [_run("r2", _found("skills-v3"))])
    assert not re.search(r"src=|href=|<script|url\(|\bid=", page)
