"""What the trainer logs becomes points; a loss that is no number ends it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pytest

from components.training.fit import Watch, curve
from penstock.core.errors import TrainingFailed


def test_a_point_per_step_with_what_is_known_of_it() -> None:
    history = [
        {"step": 2, "loss": 1.5, "grad_norm": 3.0, "learning_rate": 0.1, "epoch": 0.1},
        {"step": 1, "loss": 2.0},
        {"step": 2, "eval_loss": 1.25, "eval_runtime": 9.0},
        {"step": 2, "train_runtime": 3.0, "total_flos": 1.0},
    ]
    assert curve(history) == [
        {"step": 1.0, "loss": 2.0},
        {
            "step": 2.0,
            "loss": 1.5,
            "gradient_norm": 3.0,
            "learning_rate": 0.1,
            "eval_loss": 1.25,
        },
    ]
    assert curve([]) == []


@pytest.mark.parametrize("name", ["loss", "eval_loss", "grad_norm"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_ends_it_in_every_process(name: str, value: float) -> None:
    for told in (True, False):
        said: list[Mapping[str, Any]] = []
        with pytest.raises(TrainingFailed, match=f"{name} is -?(nan|inf) at step 7"):
            Watch(said.append).logged(7, {name: value}, told)
        assert said == []


def test_only_the_first_process_tells_and_all_count_tokens() -> None:
    for told in (True, False):
        said: list[Mapping[str, Any]] = []
        watch = Watch(said.append)
        watch.logged(3, {"loss": 1.0, "num_tokens": 640.0}, told)
        watch.logged(3, {"eval_loss": 2.0}, told)
        assert watch.tokens == 640.0
        points = [{"step": 3.0, "loss": 1.0}, {"step": 3.0, "eval_loss": 2.0}]
        assert said == ([{"point": point} for point in points] if told else [])


def test_the_speed_is_of_the_time_between_two_looks() -> None:
    said: list[Mapping[str, Any]] = []
    watch = Watch(said.append, iter([10.0, 12.0, 12.0]).__next__)
    for tokens in (100.0, 400.0, 500.0):
        watch.logged(1, {"loss": 1.0, "num_tokens": tokens}, told=True)
    speeds = [body["point"].get("tokens_per_s") for body in said]
    assert speeds == [None, 150.0, None]
    assert watch.tokens == 500.0
