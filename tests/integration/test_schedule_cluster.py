"""Schedules as recurring runs, on the double of Kubeflow Pipelines: replaced without harm."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from penstock.cli.app import app
from penstock.cli.schedule_cluster import OnCluster
from penstock.core.errors import LifecycleError
from penstock.core.schedules import Schedule
from pipelines.schedules.recurring import Recurring
from pipelines.submission.client import connect
from pipelines.submission.errors import Unfinished
from pipelines.submission.package import compiled
from pipelines.submission.publishing import publish
from pipelines.submission.settings import KfpSettings
from tests.fakes.kfp import Double, Fault, kfp_server
from tests.fakes.kfp.faked_time import FakedTime

pytestmark = pytest.mark.integration
SPEC = {
    "name": "tiny",
    "source": "hf://acme/tiny",
    "data": {"train": "s3://sets/train.jsonl"},
    "target": {"kserve": {"namespace": "models"}},
}


@dataclass
class Place:
    """The double, and the schedules on it."""

    double: Double
    recurring: Recurring
    time: FakedTime

    def put(self, **changes: Any) -> str:
        body = {"name": "nightly", "model": "tiny", "spec": SPEC, "when": {"every_s": 60}}
        schedule = Schedule.model_validate({**body, **changes})
        stored = publish(self.recurring.client, compiled("retrain"))
        return self.recurring.put(schedule, stored)

    def bodies(self) -> list[dict[str, Any]]:
        return self.double.do(lambda: [row.show() for row in self.double.store.schedules])

    def states(self) -> list[str]:
        return self.double.do(lambda: [run.state for run in self.double.store.runs])


@pytest.fixture
def place() -> Iterator[Place]:
    with kfp_server() as double:
        time = FakedTime()
        settings = KfpSettings.from_env({"PENSTOCK_KFP_URL": double.url})
        with connect(settings, time.patience()) as client:
            yield Place(double, Recurring(client, "penstock", "UTC", time.patience()), time)


def test_it_names_the_pipeline_only_and_runs_one_at_a_time(place: Place) -> None:
    assert place.put(when={"cron": "0 3 * * 1-5"}) == "created"
    (body,) = place.bodies()
    assert "pipeline_version_id" not in body["pipeline_version_reference"]
    assert body["trigger"]["cron_schedule"]["cron"] == "0 0 3 * * mon,tue,wed,thu,fri"
    assert (body["max_concurrency"], body["no_catchup"]) == ("1", True)
    given = body["runtime_config"]["parameters"]
    assert json.loads(given["spec"])["name"] == "tiny"
    assert given["because"] == "schedule nightly"


def test_the_same_again_changes_nothing(place: Place) -> None:
    place.put()
    before = place.bodies()
    assert place.put() == "unchanged"
    assert place.bodies() == before


def test_triggers_see_the_schedule_with_its_spec(place: Place) -> None:
    place.put(on=["drift:error_rate"])
    url = {"PENSTOCK_KFP_URL": place.double.url}
    (kept,) = OnCluster(KfpSettings.from_env(url), url).known()
    assert kept.schedule.on == ["drift:error_rate"]
    assert kept.schedule.spec == SPEC
    assert not kept.schedule.paused


def test_a_replacement_waits_for_the_run_in_flight(place: Place) -> None:
    place.put()
    place.double.advance(60)
    place.double.do(
        lambda: place.double.store.runs[0].script.extend(["RUNNING"] * 9 + ["SUCCEEDED"])
    )
    assert place.put(when={"every_s": 600}) == "replaced"
    assert place.states() == ["SUCCEEDED"]  # nobody ended it
    (body,) = place.bodies()
    assert body["trigger"]["periodic_schedule"]["interval_second"] == "600"


def test_a_run_that_does_not_end_keeps_the_old_one_disabled(place: Place) -> None:
    place.put()
    place.double.advance(60)
    place.double.do(lambda: setattr(place.double.store.runs[0], "held", True))
    with pytest.raises(Unfinished, match="the old one is disabled"):
        place.put(when={"every_s": 600}, deadline_s=30)
    assert not place.recurring.get("nightly").recurring.enabled
    place.double.do(lambda: setattr(place.double.store.runs[0], "state", "FAILED"))
    assert place.put(when={"every_s": 600}, deadline_s=30) == "replaced"
    assert [b["trigger"]["periodic_schedule"]["interval_second"] for b in place.bodies()] == ["600"]


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", ":disable"), ("GET", "/runs?"), ("POST", "/recurringruns"), ("DELETE", "")],
)
def test_a_replacement_that_broke_off_goes_on(place: Place, method: str, path: str) -> None:
    place.put()
    place.double.do(lambda: place.double.faults.append(Fault("status", method, path, 10_000, 503)))
    with pytest.raises(LifecycleError):
        place.put(when={"every_s": 600})
    place.double.do(place.double.faults.clear)
    place.put(when={"every_s": 600})
    assert [b["trigger"]["periodic_schedule"]["interval_second"] for b in place.bodies()] == ["600"]


def test_pause_resume_trigger_delete(place: Place) -> None:
    place.put()
    place.recurring.pause("nightly", paused=True)
    place.double.advance(600)
    assert place.states() == []
    place.recurring.pause("nightly", paused=False)
    place.double.advance(60)
    found = place.recurring.get("nightly")
    assert len(place.recurring.runs(found)) == 1
    version = place.recurring.client.pipelines.versions(found.recurring.pipeline_id)[0]
    run = place.recurring.trigger("nightly", "drift", version.version_id)
    assert run.parameters["because"] == "drift"
    place.recurring.delete("nightly")
    assert place.bodies() == []
    assert len(place.states()) == 2  # what runs goes on


def _call(double: Double, tmp_path: Path, *words: str) -> Result:
    path = tmp_path / "model.yaml"
    path.write_text(json.dumps(SPEC))
    env = {"PENSTOCK_KFP_URL": double.url, "PENSTOCK_HOME": str(tmp_path / "home")}
    words = tuple(str(path) if word == "SPEC" else word for word in words)
    return CliRunner(env=env).invoke(app, ["schedule", *words])


def test_the_commands(tmp_path: Path) -> None:
    with kfp_server() as double:
        made = _call(double, tmp_path, "create", "nightly", "SPEC", "--cron", "0 3 * * *")
        assert made.exception is None, made.output
        assert "nightly: created, 0 3 * * * UTC" in made.output
        listed = _call(double, tmp_path, "list", "--output", "json")
        (each,) = json.loads(listed.output)["schedules"]
        assert (each["name"], each["pipeline"], each["paused"]) == ("nightly", "retrain", False)
        assert _call(double, tmp_path, "pause", "nightly").exit_code == 0
        assert "paused" in _call(double, tmp_path, "show", "nightly").output
        assert _call(double, tmp_path, "delete", "nightly").exit_code == 0
        assert "no schedules" in _call(double, tmp_path, "list").output


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--cron", "* * *"), "--cron: found '* * *'; allowed: five fields"),
        (("--cron", "0 3 * * *", "--timezone", "Europe/Paris"), "all schedules of a server"),
        (("--cron", "0 3 * * *", "--timezone", "Mars"), "--timezone: found 'Mars'"),
        (("--every", "1d", "--pipeline", "engine"), "--pipeline: found 'engine'"),
        (("--every", "2s"), "--every: found 2; allowed"),
        ((), "either a cron line or an interval"),
    ],
)
def test_bad_input_changes_nothing(tmp_path: Path, words: tuple[str, ...], says: str) -> None:
    with kfp_server() as double:
        result = _call(double, tmp_path, "create", "nightly", "SPEC", *words)
        assert isinstance(result.exception, LifecycleError), result.output
        assert says in str(result.exception)
        assert result.exception.exit_code == 2
        assert double.do(lambda: (list(double.store.schedules), list(double.store.runs))) == (
            [],
            [],
        )
