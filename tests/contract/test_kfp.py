"""What we rely on of Kubeflow Pipelines: every call that we make, on the double and on a real one.

PENSTOCK_TEST_KFP=URL names a real back end (make test-kfp); the other PENSTOCK_KFP_* variables
say who asks. PENSTOCK_TEST_KFP_WAIT_S is how long its pods and schedules may be waited for; 0, the
default, leaves out what needs them. Everything that is made there has a name of its own, and is
removed again.
"""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import pytest

from pipelines.submission.client import SubmissionClient, connect
from pipelines.submission.errors import Missing, Rejected, UnknownParameter
from pipelines.submission.package import Package, package_of
from pipelines.submission.patience import Patience
from pipelines.submission.publishing import publish
from pipelines.submission.settings import KfpSettings
from pipelines.submission.states import over
from pipelines.submission.values import (
    Experiment,
    NewRecurringRun,
    NewRun,
    Run,
    State,
    Trigger,
    Version,
)
from tests.fakes.kfp import kfp_server
from tests.fakes.kfp.tiny import tiny_package

ENV = dict(os.environ)  # noqa: TID251 - names the back end
REAL = ENV.get("PENSTOCK_TEST_KFP", "")
WAIT_S = float(ENV.get("PENSTOCK_TEST_KFP_WAIT_S", "0"))
pytestmark = pytest.mark.integration


@dataclass(frozen=True)
class Backend:
    """A server, and a pipeline on it."""

    client: SubmissionClient
    package: Package
    version: Version
    experiment: Experiment
    advance: Callable[[float], object] | None
    """Lets its time pass; None for a real one: wait."""

    def run(self, name: str = "", parameters: dict[str, object] | None = None) -> NewRun:
        given = parameters or {"word": "one", "times": 2}
        return NewRun(
            name or unique("run"),
            self.experiment.experiment_id,
            self.version.pipeline_id,
            self.version.version_id,
            given,
        )

    def recurring(self, trigger: Trigger, **changed: object) -> NewRecurringRun:
        body: dict[str, object] = {
            "name": unique("recurring"),
            "experiment_id": self.experiment.experiment_id,
            "pipeline_id": self.version.pipeline_id,
            "trigger": trigger,
            "parameters": {"word": "one", "times": 2},
            **changed,
        }
        return NewRecurringRun(**body)  # type: ignore[arg-type]

    def until(self, found: Callable[[], object], seconds: float = 150) -> None:
        """Let time pass until something is there; skips where a real one may not be waited for."""
        if self.advance is not None:
            self.advance(seconds)
            assert found()
            return
        if not WAIT_S:
            pytest.skip("PENSTOCK_TEST_KFP_WAIT_S is 0: nothing is waited for")
        end = datetime.now(UTC) + timedelta(seconds=WAIT_S)
        while not found():
            assert datetime.now(UTC) < end
            threading.Event().wait(2)


def unique(what: str) -> str:
    return f"penstock-contract-{what}-{uuid.uuid4().hex[:8]}"


@pytest.fixture(scope="module", params=["double", "real"])
def backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    if request.param == "real":
        if not REAL:
            pytest.skip("PENSTOCK_TEST_KFP names no back end: the double alone is tested")
        settings = KfpSettings.from_env({**ENV, "PENSTOCK_KFP_URL": REAL})
        with connect(settings) as client:
            yield _prepared(client, None)
        return
    with (
        kfp_server() as double,
        connect(KfpSettings(url=double.url), Patience(total_s=10)) as client,
    ):
        yield _prepared(client, double.advance)


def _prepared(client: SubmissionClient, advance: Callable[[float], object] | None) -> Backend:
    package = package_of(tiny_package(unique("pipeline")))
    stored = publish(client, package)
    experiment = client.experiments.ensure(unique("experiment"))
    return Backend(client, package, stored.version, experiment, advance)


def test_it_tells_whether_it_has_several_users(backend: Backend) -> None:
    assert backend.client.health().multi_user in (True, False)


def test_an_experiment_is_made_once(backend: Backend) -> None:
    name = unique("experiment")
    assert backend.client.experiments.named(name) is None
    made = backend.client.experiments.ensure(name)
    assert backend.client.experiments.ensure(name) == made
    assert backend.client.experiments.named(name) == made
    assert made.name == name


def test_a_pipeline_is_made_once_and_found_by_name(backend: Backend) -> None:
    name = unique("other")
    assert backend.client.pipelines.named(name) is None
    made = backend.client.pipelines.create(name, description="what it is for")
    assert backend.client.pipelines.create(name).pipeline_id == made.pipeline_id
    found = backend.client.pipelines.named(name)
    assert found == made
    assert found.description == "what it is for"
    assert name in [pipeline.name for pipeline in backend.client.pipelines.list()]
    assert backend.client.pipelines.versions(made.pipeline_id) == ()


def test_a_version_is_uploaded_once_and_shows_what_it_takes(backend: Backend) -> None:
    again = backend.client.pipelines.add_version(
        backend.version.pipeline_id, backend.package.version, backend.package.text
    )
    assert again.version_id == backend.version.version_id
    assert sorted(again.parameters) == ["times", "word"]
    named = backend.client.pipelines.versions(again.pipeline_id, name=backend.package.version)
    assert [version.version_id for version in named] == [again.version_id]
    assert publish(backend.client, backend.package).uploaded is False


@pytest.mark.parametrize(
    "package", ["a: b\n", "{{{", "", "pipelineInfo: {name: x}\nschemaVersion: 2.1.0\n"]
)
def test_what_is_no_pipeline_is_refused(backend: Backend, package: str) -> None:
    with pytest.raises(Rejected, match="publish pipeline version bad"):
        backend.client.pipelines.add_version(backend.version.pipeline_id, "bad", package)
    assert backend.client.pipelines.versions(backend.version.pipeline_id, name="bad") == ()


def test_another_schema_is_refused(backend: Backend) -> None:
    old = backend.package.text.replace("schemaVersion: 2.1.0", "schemaVersion: 2.0.0")
    assert old != backend.package.text
    with pytest.raises(Rejected) as refused:
        backend.client.pipelines.add_version(backend.version.pipeline_id, "old", old)
    assert refused.value.exit_code == 8


def test_a_run_has_what_it_was_made_with(backend: Backend) -> None:
    word = '{"spec": "ä\\u0033 {{x}} \\n"}'
    new = backend.run(parameters={"word": word, "times": 3})
    made = backend.client.runs.create(new)
    found = backend.client.runs.get(made.run_id)
    assert found.name == new.name
    assert found.parameters == {"word": word, "times": 3}
    assert (found.pipeline_id, found.version_id) == (new.pipeline_id, new.version_id)
    assert found.experiment_id == new.experiment_id
    assert found.created_at is not None
    assert abs((datetime.now(UTC) - found.created_at).total_seconds()) < 3600
    assert made.state in ("PENDING", "RUNTIME_STATE_UNSPECIFIED", "RUNNING")
    _ended(backend, made)


def test_runs_are_found_by_name_and_by_experiment(backend: Backend) -> None:
    names = [unique("run") for _ in range(3)]
    made = [backend.client.runs.create(backend.run(name)) for name in names]
    by_name = backend.client.runs.list(name=names[1])
    assert [run.run_id for run in by_name] == [made[1].run_id]
    mine = backend.client.runs.list(experiment_id=backend.experiment.experiment_id)
    assert {run.run_id for run in made} <= {run.run_id for run in mine}
    times = [run.created_at for run in mine]
    assert times == sorted(times, key=str, reverse=True)
    assert len(backend.client.runs.list(limit=2)) == 2
    assert backend.client.runs.list(name=unique("absent")) == ()
    for run in made:
        _ended(backend, run)


@pytest.mark.parametrize(
    ("parameters", "named"),
    [
        ({"word": "one", "times": 1, "unknown": "x"}, "unknown"),
        ({"times": 1}, "word"),
        ({"word": 3, "times": 1}, "word"),
        ({"word": "one", "times": "many"}, "times"),
    ],
)
def test_parameters_are_checked(
    backend: Backend, parameters: dict[str, object], named: str
) -> None:
    new = backend.run(parameters=parameters)
    with pytest.raises(UnknownParameter, match=f"parameter {named}"):
        backend.client.runs.create(new)
    assert backend.client.runs.list(name=new.name) == ()


def test_what_is_not_there_is_missing(backend: Backend) -> None:
    absent = str(uuid.uuid4())
    with pytest.raises(Missing, match=absent):
        backend.client.runs.get(absent)
    with pytest.raises(Missing):
        backend.client.runs.terminate(absent)
    run = backend.run()
    for changed in (replace(run, experiment_id=absent), replace(run, version_id=absent)):
        with pytest.raises((Missing, Rejected)):
            backend.client.runs.create(changed)
    assert backend.client.runs.list(name=run.name) == ()
    assert backend.client.schedules.get(absent) is None


def test_a_run_is_ended_and_ending_it_again_changes_nothing(backend: Backend) -> None:
    made = backend.client.runs.create(backend.run())
    ended = backend.client.runs.terminate(made.run_id)
    assert ended.state in ("CANCELING", "CANCELED", "FAILED")
    assert backend.client.runs.terminate(made.run_id).run_id == made.run_id
    if backend.advance is not None:
        assert backend.client.runs.get(made.run_id).state == "CANCELED"


def test_a_run_that_did_not_fail_is_not_retried(backend: Backend) -> None:
    made = backend.client.runs.create(backend.run())
    with pytest.raises(Rejected, match="only a run that failed"):
        backend.client.runs.retry(made.run_id)
    _ended(backend, made)


def test_a_run_comes_to_an_end_with_its_tasks(backend: Backend) -> None:
    made = backend.client.runs.create(backend.run())
    seen: set[State] = set()

    def ended() -> bool:
        run = backend.client.runs.get(made.run_id)
        seen.add(run.state)
        return over(run.state) and bool(run.tasks) and all(over(t.state) for t in run.tasks)

    if backend.advance is not None:
        assert any(ended() for _ in range(5))
    else:
        backend.until(ended)
    assert seen <= {"PENDING", "RUNNING", "SUCCEEDED", "RUNTIME_STATE_UNSPECIFIED"}
    assert backend.client.runs.get(made.run_id).finished_at is not None


def test_a_log_that_nobody_kept_is_missing(backend: Backend) -> None:
    made = backend.client.runs.create(backend.run())
    with pytest.raises(Missing, match="the server has none"):
        backend.client.runs.log(made.run_id, "no-such-pod")
    _ended(backend, made)


@pytest.mark.parametrize(
    "trigger",
    [
        Trigger(cron="0 30 2 * * 1-5"),
        Trigger(interval_s=3600),
        Trigger(cron="0 0 3 * * *", start=datetime(2030, 1, 1, tzinfo=UTC)),
        Trigger(interval_s=60, end=datetime(2031, 5, 4, tzinfo=UTC)),
    ],
)
def test_a_recurring_run_is_kept_as_it_was_made(backend: Backend, trigger: Trigger) -> None:
    new = backend.recurring(trigger, enabled=False, max_concurrency=2)
    made = backend.client.schedules.create(new)
    found = backend.client.schedules.get(made.recurring_run_id)
    assert found is not None
    assert found.trigger == trigger
    assert found.name == new.name
    assert (found.pipeline_id, found.version_id) == (new.pipeline_id, "")
    assert found.parameters == new.parameters
    assert (found.enabled, found.catch_up, found.max_concurrency) == (False, False, 2)
    assert backend.client.schedules.named(new.name) == found
    listed = backend.client.schedules.list(experiment_id=new.experiment_id)
    assert found.recurring_run_id in [each.recurring_run_id for each in listed]
    backend.client.schedules.delete(made.recurring_run_id)


def test_a_recurring_run_is_paused_resumed_and_deleted(backend: Backend) -> None:
    made = backend.client.schedules.create(backend.recurring(Trigger(cron="0 0 0 1 1 *")))
    identity = made.recurring_run_id
    for enabled in (False, False, True, True):
        change = backend.client.schedules.enable if enabled else backend.client.schedules.disable
        change(identity)
        found = backend.client.schedules.get(identity)
        assert found is not None
        assert found.enabled is enabled
    backend.client.schedules.delete(identity)
    assert backend.client.schedules.get(identity) is None
    backend.client.schedules.delete(identity)
    with pytest.raises(Missing):
        backend.client.schedules.enable(identity)


@pytest.mark.parametrize("cron", ["0 99 * * * *", "yesterday", "* *", ""])
def test_a_wrong_cron_is_refused(backend: Backend, cron: str) -> None:
    new = backend.recurring(Trigger(cron=cron or " "))
    with pytest.raises(Rejected, match=f"create recurring run {new.name}"):
        backend.client.schedules.create(new)
    assert backend.client.schedules.named(new.name) is None


@pytest.mark.parametrize("concurrency", [0, 11])
def test_concurrency_has_bounds(backend: Backend, concurrency: int) -> None:
    new = backend.recurring(Trigger(interval_s=60), max_concurrency=concurrency)
    with pytest.raises(Rejected, match="at least 1 and at most 10"):
        backend.client.schedules.create(new)


def test_a_recurring_run_s_parameters_are_checked(backend: Backend) -> None:
    new = backend.recurring(Trigger(interval_s=60), parameters={"word": "x", "other": 1})
    with pytest.raises(UnknownParameter, match=r"other|times"):
        backend.client.schedules.create(new)


def test_a_recurring_run_fires_with_the_newest_version(backend: Backend) -> None:
    new = backend.recurring(Trigger(cron="0 * * * * *"), parameters={"word": "a", "times": 1})
    made = backend.client.schedules.create(new)
    newer = backend.client.pipelines.add_version(
        new.pipeline_id, unique("version"), backend.package.text
    )

    def fired() -> tuple[Run, ...]:
        return backend.client.runs.list(recurring_run_id=made.recurring_run_id)

    try:
        backend.until(fired)
        assert fired()[-1].version_id == newer.version_id
        assert fired()[-1].parameters == {"word": "a", "times": 1}
        assert len(fired()) <= 3
    finally:
        backend.client.schedules.disable(made.recurring_run_id)
        for run in fired():
            _ended(backend, run)
        backend.client.schedules.delete(made.recurring_run_id)


def test_what_is_paused_does_not_fire(backend: Backend) -> None:
    made = backend.client.schedules.create(
        backend.recurring(Trigger(cron="0 * * * * *"), enabled=False)
    )
    if backend.advance is not None:
        backend.advance(300)
    assert backend.client.runs.list(recurring_run_id=made.recurring_run_id) == ()
    backend.client.schedules.delete(made.recurring_run_id)


def test_deleting_a_recurring_run_leaves_its_runs_alone(backend: Backend) -> None:
    made = backend.client.schedules.create(backend.recurring(Trigger(cron="0 * * * * *")))

    def fired() -> tuple[Run, ...]:
        return backend.client.runs.list(recurring_run_id=made.recurring_run_id)

    try:
        backend.until(fired)
    finally:
        backend.client.schedules.delete(made.recurring_run_id, keep_runs=True)
    (run, *_) = fired()
    ended = [backend.client.runs.get(run.run_id).state for _ in range(4)]
    assert "CANCELED" not in ended
    assert backend.advance is None or ended[-1] == "SUCCEEDED"
    _ended(backend, run)


def _ended(backend: Backend, run: Run) -> None:
    """Leave nothing running."""
    backend.client.runs.terminate(run.run_id)
