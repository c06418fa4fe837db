"""What is shown of a training: one file with everything in it."""

from __future__ import annotations

import re
from typing import Any

import pytest

from components.steps.report import render_step
from components.steps.training_report import curves, headline
from penstock.core.runs import StepRecord


def found(**changes: Any) -> dict[str, Any]:
    curve = [
        {"step": float(n), "loss": 4.0 / n, "learning_rate": 1e-3 * n, "eval_loss": 5.0 / n}
        for n in range(1, 9)
    ]
    return {
        "root": "sha256:trained",
        "base_root": "sha256:base",
        "data": "sha256:data",
        "strategy": {"method": "lora", "lora": {"rank": 4, "target_modules": None}, "seed": 3},
        "rate": 2e-4,
        "rows": 1900,
        "held_out": 100,
        "steps": 8,
        "resumed_at": 0,
        "trained_parameters": 1234,
        "curve": curve,
        "first_loss": 4.0,
        "loss": 0.5,
        "eval_loss": 0.625,
        "tokens_per_s": 4321.0,
        "train_s": 12.0,
        "peak_bytes": 2_500_000_000,
        "device": "cuda:0",
        "processes": 2,
        "tracking_run": "abc",
        "libraries": {"trl": "1"},
        "found": False,
        **changes,
    }


def test_the_page_loads_nothing_and_says_what_it_was_made_from() -> None:
    step = StepRecord(step="train", outcome="done", started_at=1.0, detail=found())
    text = render_step(step, {"name": "<chat>"}, "r1")
    assert text.startswith("<!doctype html>")
    assert "&lt;chat&gt;" in text
    assert not re.search(r"(src|href|url)\s*[=(]|<script|https?:", text)
    for said in ("sha256:base", "sha256:data", "rank 4", "4,321 tokens/s on 2 cuda", "2.50 GB"):
        assert said in text
    assert "target_modules" not in text


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "lora: trained in 12 s; 8 steps on 1,900 rows; loss 4.000 to 0.500, 0.625 on 100"),
        ({"found": True}, "lora: found, trained before; 8 steps"),
        (
            {"eval_loss": None},
            "lora: trained in 12 s; 8 steps on 1,900 rows; loss 4.000 to 0.500",
        ),
    ],
)
def test_the_headline_says_what_came_of_it(changes: dict[str, Any], said: str) -> None:
    told = headline(found(**changes))
    assert told.startswith(said)
    assert ("held out" in told) is (changes.get("eval_loss", 1) is not None)


def test_curves_stay_inside_and_thin_out() -> None:
    points = [{"step": float(n), "loss": 5.0 - n / 5000, "eval_loss": 1.0} for n in range(1, 20001)]
    drawn = curves(points)
    assert drawn.count("<polyline") == 2
    assert len(drawn) < 20_000
    at = [pair.split(",") for pair in re.findall(r"[\d.]+,[\d.]+", drawn)]
    assert all(0 <= float(x) <= 480 and 0 <= float(y) <= 272 for x, y in at)
    assert max(float(x) for x, _ in at) == 470.0, "the last point is drawn"


def test_without_a_point_there_is_no_picture() -> None:
    assert curves([]) == ""
    assert curves([{"step": 1.0, "eval_loss": 2.0}]) == ""
    assert curves([{"step": 1.0, "loss": float("nan")}]) == ""
