"""Whether to train again: everything that may be new, and every reason not to."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.steps.changes import Attempt, Limits, Place, changes, decide
from registry.passport import Inputs, Made, Passport

INPUTS = Inputs(
    base="hf://acme/base@" + "a" * 40,
    data={"train": "sha256:" + "1" * 64, "evaluate": "sha256:" + "2" * 64},
    strategy="sha256:" + "3" * 64,
    code="1.0.0",
    image="penstock-train-python:1.0.0",
)
NOW = 1_000_000.0
NEW = changes(None, INPUTS)


def _passport(inputs: Inputs | None) -> Passport:
    made = Made(penstock="1.0.0", at="2026-01-01T00:00:00+00:00", run_id="r")
    return Passport(
        name="m",
        source="hf://acme/base@" + "a" * 40,
        root="sha256:" + "4" * 64,
        files={},
        data={},
        inputs=inputs,
        evaluation={},
        decisions=[],
        made=made,
    )


@pytest.mark.parametrize(
    ("update", "names"),
    [
        ({}, []),
        ({"base": "hf://acme/base@" + "b" * 40}, ["base"]),
        ({"data": {**INPUTS.data, "train": "sha256:" + "9" * 64}}, ["data.train"]),
        ({"data": {**INPUTS.data, "calibrate": "sha256:" + "9" * 64}}, ["data.calibrate"]),
        ({"data": {"train": INPUTS.data["train"]}}, ["data.evaluate"]),
        ({"strategy": "sha256:" + "8" * 64, "code": "1.1.0"}, ["strategy", "code"]),
        ({"image": "penstock-train-python@sha256:" + "7" * 64}, ["image"]),
    ],
)
def test_names_what_is_new(update: dict[str, object], names: list[str]) -> None:
    found = changes(_passport(INPUTS), INPUTS.model_copy(update=update))
    assert [change.what for change in found] == names


def test_a_beginning_is_new() -> None:
    assert [c.what for c in changes(None, INPUTS)] == ["first"]
    assert [c.what for c in changes(_passport(None), INPUTS)] == ["origin"]


def _attempt(outcome: str, *, ago_s: float = 100.0, inputs: Inputs = INPUTS) -> Attempt:
    return Attempt(inputs.digest, "run-1", NOW - ago_s, outcome, "skill table lost", 2.0)


OTHER = INPUTS.model_copy(update={"code": "0.9"})


@pytest.mark.parametrize(
    ("past", "place", "limits", "outcome", "says"),
    [
        ([], Place(), Limits(), "changed", "no champion"),
        ([_attempt("refused")], Place(), Limits(), "refused before", "skill table lost"),
        ([_attempt("refused")], Place(), Limits(force=True), "changed", "no champion"),
        ([_attempt("refused", inputs=OTHER)], Place(), Limits(), "changed", "no champion"),
        ([_attempt("failed")], Place(), Limits(), "changed", "no champion"),
        ([_attempt("failed")], Place(), Limits(cooldown_s=99), "changed", "no champion"),
        ([_attempt("failed")], Place(), Limits(cooldown_s=101), "cooling down", "1970-01-12"),
        ([_attempt("done")], Place(), Limits(gpu_hours_per_day=2), "over budget", "2.00 GPU"),
        ([_attempt("done")], Place(), Limits(gpu_hours_per_day=2.1), "changed", ""),
        ([_attempt("done", ago_s=90_000)], Place(), Limits(gpu_hours_per_day=2), "changed", ""),
        ([], Place("m-v2", "run-7"), Limits(force=True), "busy", "run-7 looks after it"),
        ([], Place("m-v2"), Limits(), "busy", "penstock controller"),
        ([_attempt("")], Place("m-v2"), Limits(cooldown_s=1e6), "changed", "resumes run run-1"),
        ([_attempt("interrupted")], Place(), Limits(cooldown_s=1e6), "changed", "resumes"),
        ([_attempt("", inputs=OTHER)], Place("m-v2"), Limits(), "busy", "nobody looks after"),
        ([_attempt("")], Place("m-v2", "run-1"), Limits(), "busy", "run-1 looks after it"),
    ],
)
def test_decides(
    past: list[Attempt], place: Place, limits: Limits, outcome: str, says: str
) -> None:
    decided = decide(NEW, INPUTS, past, place, limits, NOW)
    assert (decided.outcome, says in decided.reason) == (outcome, True), decided
    assert decided.go == (outcome == "changed")


@given(st.floats(0, 1e6), st.floats(0, 100))
def test_nothing_new_never_trains(cooldown_s: float, hours: float) -> None:
    for past in ([], [_attempt("refused")], [_attempt("done")], [_attempt("")]):
        decided = decide((), INPUTS, past, Place(), Limits(cooldown_s, hours), NOW)
        assert decided.outcome == "no change"
