"""What a checkpoint was trained from is known by its root, and stands in its passport."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from components.steps.trained import remember, trained_from
from penstock.core.settings import Settings
from registry.passport import Made, Passport

ROOT, OTHER = "sha256:" + "a" * 64, "sha256:" + "b" * 64
FOUND: dict[str, Any] = {
    "root": ROOT,
    "base_root": OTHER,
    "data": "sha256:" + "c" * 64,
    "strategy": {"method": "lora", "seed": 3},
    "rows": 9,
    "held_out": 1,
    "steps": 4,
    "loss": 0.5,
    "eval_loss": None,
    "device": "cpu:0",
    "libraries": {"trl": "1"},
    "tracking_run": "abc",
    "curve": [],
}


def test_it_is_kept_by_root_and_goes_into_the_passport(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    assert trained_from(settings, ROOT) is None
    remember(settings, FOUND)
    remember(settings, {**FOUND, "loss": 0.25})
    found = trained_from(settings, ROOT)
    assert found is not None
    assert (found.base_root, found.loss, found.eval_loss) == (OTHER, 0.25, None)
    assert trained_from(settings, OTHER) is None
    passport = Passport(
        name="chat",
        source="hf://a/b@c",
        root=ROOT,
        files={},
        licence="",
        data={},
        training=found,
        evaluation={},
        decisions=[],
        made=Made(penstock="1", at="now", run_id="r"),
    )
    assert Passport.model_validate_json(passport.model_dump_json()) == passport


def test_a_record_that_lacks_something_is_not_written(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    with pytest.raises(ValidationError, match="rows"):
        remember(settings, {**FOUND, "rows": None})
    assert trained_from(settings, ROOT) is None
