"""What begins or goes on after a run's time is ended, and says so."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import get_args

import pytest

from components.steps import deadline
from components.steps.conclusion import conclude
from components.steps.context import read_records, step
from penstock.core.documents import parse_spec
from penstock.core.errors import DeadlinePassed, HubError, SpecError, TriedEnough
from penstock.core.settings import Settings
from penstock.core.spec import ModelSpec
from penstock.core.tasks import Task, TaskLimits
from pipelines.steps import RETRAIN_STEPS

SPEC = ModelSpec.model_validate({"name": "m", "source": "hf://a/b"}).to_json()


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    return {"PENSTOCK_HOME": str(tmp_path), "PENSTOCK_RUN_ID": "r"}


def _began(
    env: dict[str, str], seconds: float, tasks: dict[Task, TaskLimits] | None = None
) -> Settings:
    with step("detect_changes", env) as context:
        deadline.begin(context.settings, seconds, tasks or {})
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


def test_a_task_ends_at_its_own_limit_and_the_others_do_not(env: dict[str, str]) -> None:
    _began(env, 60.0, {"train": TaskLimits(timeout_s=0.2)})
    with step("pull", env):
        threading.Event().wait(0.3)
    told = r"longer than tasks\.train\.timeout_s, 0\.2 s"
    with pytest.raises(DeadlinePassed, match=told), step("train", env):
        threading.Event().wait(60)


@pytest.mark.parametrize("retries", [0, 2, None])
def test_a_task_is_tried_again_as_often_as_the_spec_says(
    env: dict[str, str], retries: int | None
) -> None:
    settings = _began(env, 0.0, {"pull": TaskLimits(retries=retries)})
    for _ in range(1 + (2 if retries is None else retries)):
        with pytest.raises(HubError), step("pull", env):
            raise HubError("the Hub is away")
    if retries is None:
        return
    with (
        pytest.raises(TriedEnough, match=rf"pull was tried {retries + 1} times?; "),
        step("pull", env),
    ):
        raise AssertionError("it is not begun")
    (record,) = (r for r in read_records(settings.run_dir / "steps") if r.step == "pull")
    assert record.failure is not None
    assert record.failure.message == "the Hub is away"
    deadline.end(settings)  # a person may have the run tried again
    with step("pull", env):
        pass


def test_every_task_that_works_may_be_limited() -> None:
    assert set(get_args(Task)) == set(RETRAIN_STEPS) - {"detect_changes", "resolve"}


def test_limits_of_no_task_and_more_than_a_pipeline_gives_are_refused() -> None:
    for tasks, named in (({"trein": {}}, "trein"), ({"train": {"retries": 3}}, "train.retries")):
        with pytest.raises(SpecError, match=named):
            parse_spec(json.dumps({"name": "m", "source": "hf://a/b", "tasks": tasks}))
