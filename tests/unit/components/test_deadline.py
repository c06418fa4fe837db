"""What begins or goes on after a run's time is ended, and says so."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import pytest

from components.steps import deadline
from components.steps.conclusion import conclude
from components.steps.context import step
from penstock.core.errors import DeadlinePassed
from penstock.core.settings import Settings
from penstock.core.spec import ModelSpec

SPEC = ModelSpec.model_validate({"name": "m", "source": "hf://a/b"}).to_json()


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    return {"PENSTOCK_HOME": str(tmp_path), "PENSTOCK_RUN_ID": "r"}


def _began(env: dict[str, str], seconds: float) -> Settings:
    with step("detect_changes", env) as context:
        deadline.begin(context.settings, seconds)
    return Settings.from_env(env)


def test_what_waits_is_ended_and_the_run_says_why(env: dict[str, str]) -> None:
    _began(env, 0.2)
    with pytest.raises(DeadlinePassed), step("train", env):
        threading.Event().wait(60)
    with pytest.raises(DeadlinePassed), step("register", env):
        threading.Event().wait(60)
    run = conclude(env, SPEC, "FAILED")
    assert run.headline.decision == "deadline"
    assert run.headline.reason == "train: ended: the run took longer than its deadline, 0.2 s"


def test_what_is_in_time_is_not_disturbed_and_a_later_task_neither(env: dict[str, str]) -> None:
    settings = _began(env, 0.3)
    with step("train", env):
        pass
    deadline.end(settings)
    with step("conclude", env):
        threading.Event().wait(0.5)


@pytest.mark.parametrize("seconds", [0.0, 3600.0])
def test_a_task_that_is_tried_again_gives_a_run_no_more_time(
    env: dict[str, str], seconds: float
) -> None:
    settings = _began(env, seconds)
    before = [path.read_text() for path in settings.run_dir.glob("ends_at")]
    _began(env, 2 * seconds)
    assert [path.read_text() for path in settings.run_dir.glob("ends_at")] == before
    for text in before:
        assert json.loads(text)[0] == pytest.approx(time.time() + seconds, abs=60)
