"""A step in one line: while a run goes on, and in `penstock status RUN_ID`."""

from __future__ import annotations

from typing import Any

from penstock.cli.watch import line
from penstock.core.runs import StepRecord


def _resolved(**detail: Any) -> StepRecord:
    return StepRecord(step="resolve", outcome="done", started_at=1.0, seconds=0.5, detail=detail)


def test_what_was_chosen_stands_beside_the_source() -> None:
    told = "vllm on 1 x nvidia-l4, bf16, tp 1"
    shown = line(_resolved(source="hf://a/b@0", plan={"told": told}))
    assert shown == f"resolve       0.5 s  hf://a/b@0: {told}"


def test_where_nothing_was_left_open_there_is_only_the_source() -> None:
    assert line(_resolved(source="hf://a/b@0")).endswith("s  hf://a/b@0")


def test_what_to_beware_of_is_a_line_of_its_own() -> None:
    shown = line(_resolved(source="hf://a/b@0", beware="data.evaluate has 3 rows"))
    assert shown.splitlines()[1].strip() == "beware: data.evaluate has 3 rows"
