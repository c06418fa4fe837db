"""What is wrong with a schedule is said before anything changes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from penstock.cli.app import app
from penstock.core.errors import LifecycleError
from penstock.core.schedules import Schedule
from pipelines.schedules.kept import Schedules

SPEC = {"name": "tiny", "source": "hf://acme/tiny", "data": {"train": "train.jsonl"}}


def _call(tmp_path: Path, *words: str, **changes: object) -> Result:
    spec = tmp_path / "model.yaml"
    spec.write_text(json.dumps({**SPEC, **changes}))
    env = {"PENSTOCK_HOME": str(tmp_path / "home"), "PENSTOCK_KFP_URL": ""}
    words = tuple(str(spec) if word == "SPEC" else word for word in words)
    return CliRunner(env=env).invoke(app, ["schedule", *words])


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--cron", "* * *"), "--cron: found '* * *'; allowed: five fields"),
        (("--cron", "61 * * * *"), "minute: found 61; allowed: 0 to 59"),
        (("--cron", "0 0 30 2 *"), "never comes"),
        (("--cron", "0 3 * * *", "--timezone", "Mars/Base"), "--timezone: found 'Mars/Base'"),
        (("--every", "soon"), "--every: found 'soon'"),
        (("--every", "1s"), "--every: found 1; allowed"),
        (("--every", "1d", "--cron", "* * * * *"), "either a cron line or an interval"),
        (("--every", "1d", "--pipeline", "engine"), "--pipeline: found 'engine'"),
        (("--every", "1d", "--pipeline", "lifecycle", "--cooldown", "1d"), "parameters of"),
        (("--every", "1d", "--deadline", "1s"), "--deadline: found 1"),
        (("--every", "1d", "--on", "drift"), "alias:NAME@ALIAS or drift:METRIC"),
        (("--every", "1d", "--on", "drift:ttft_p95"), "rollout.metrics: error_rate; scores"),
        (("--every", "1d", "--on", "alias:tiny@champion"), "every promotion"),
    ],
)
def test_create_says_what_is_wrong(tmp_path: Path, words: tuple[str, ...], says: str) -> None:
    result = _call(tmp_path, "create", "nightly", "SPEC", "--local", *words)
    assert isinstance(result.exception, LifecycleError), result.output
    assert (result.exception.exit_code, says in str(result.exception)) == (2, True), (
        result.exception
    )
    assert not (tmp_path / "home").exists()


def test_a_name_and_data_are_wanted(tmp_path: Path) -> None:
    result = _call(tmp_path, "create", "Nightly", "SPEC", "--every", "1d", "--local")
    assert "name: found 'Nightly'; allowed: Lower-case letters" in str(result.exception)
    result = _call(tmp_path, "create", "n", "SPEC", "--every", "1d", "--local", data={})
    assert "data.train is not set" in str(result.exception)
    result = _call(tmp_path, "create", "n", "SPEC", "--every", "1d")
    assert "for Kubeflow Pipelines" in str(result.exception)  # paths of this machine
    result = _call(tmp_path, "list")
    assert "--local was not given" in str(result.exception)


def test_what_is_not_there(tmp_path: Path) -> None:
    store = Schedules(tmp_path / "home/schedules")
    body = {"name": "nightly", "model": "tiny", "spec": SPEC, "when": {"every_s": 60}}
    store.put(Schedule.model_validate(body), read=None)
    for verb in ("show", "pause", "resume", "delete", "trigger"):
        result = _call(tmp_path, verb, "daily", "--local")
        assert "no schedule 'daily' on this machine; there are: nightly" in str(result.exception)
    assert _call(tmp_path, "pause", "nightly", "--local").output == "nightly: paused\n"
    listed = _call(tmp_path, "list", "--local").output
    assert "retrain of tiny, every 1 m; paused" in listed
    assert _call(tmp_path, "resume", "nightly", "--local").output == "nightly: goes on\n"
    assert "no scheduler runs" in _call(tmp_path, "list", "--local").output
    assert _call(tmp_path, "delete", "nightly", "--local").exit_code == 0
    assert store.list() == []
