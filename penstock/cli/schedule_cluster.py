"""Schedules on Kubeflow Pipelines, as the commands see them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from penstock.cli.schedule_places import Ended, Seen
from penstock.core.schedules import Schedule

if TYPE_CHECKING:
    from pipelines.schedules.kept import Kept
    from pipelines.schedules.recurring import Found, Recurring
    from pipelines.submission.settings import KfpSettings
    from pipelines.submission.values import Run


class OnCluster:
    """Recurring runs of Kubeflow Pipelines."""

    def __init__(self, kfp: KfpSettings, env: Mapping[str, str]) -> None:
        self._kfp, self._env = kfp, env

    def put(self, schedule: Schedule) -> list[str]:
        """Create or replace one; its pipeline is published if it is not there."""
        from penstock.core.documents import parse_spec
        from pipelines.schedules.recurring import parameters
        from pipelines.submission.package import check_parameters, compiled
        from pipelines.submission.publishing import publish

        model = parse_spec(json.dumps(schedule.spec))
        given = self._env.get("PENSTOCK_IMAGES")
        registry = given or (None if model.target == "local" else model.target.kserve.images)
        package = compiled(schedule.pipeline, images=registry or "")
        check_parameters(package, parameters(schedule))
        with self._recurring() as recurring:
            recurring.require(schedule)
            stored = publish(recurring.client, package)
            done = recurring.put(schedule, stored)
        return [
            f"{package.name} {stored.version.name}; every run takes the newest version",
            f"{schedule.name}: {done}, {schedule.when}",
        ]

    def all(self) -> list[Seen]:
        """Return all of them."""
        with self._recurring() as recurring:
            return [self._seen(found, ()) for found in recurring.all()]

    def get(self, name: str) -> Seen:
        """Return one, with its runs."""
        with self._recurring() as recurring:
            found = recurring.get(name)
            return self._seen(found, recurring.runs(found))

    def pause(self, name: str, *, paused: bool) -> list[str]:
        """Stop it or let it go on."""
        with self._recurring() as recurring:
            recurring.pause(name, paused=paused)
        return [f"{name}: {'paused' if paused else 'goes on'}"]

    def delete(self, name: str) -> list[str]:
        """Remove it."""
        with self._recurring() as recurring:
            recurring.get(name)
            recurring.delete(name)
        return [f"{name}: deleted; a run in flight goes on"]

    def trigger(self, name: str, because: str) -> Ended:
        """Run it now, and wait."""
        from penstock.cli.kfp import TaskLines
        from pipelines.submission.patience import Patience
        from pipelines.submission.states import exit_code, outcome
        from pipelines.submission.waiting import wait

        with self._recurring() as recurring:
            run = _started(recurring, name, because)
            runs = recurring.client.runs
            run = wait(runs, run.run_id, watch=TaskLines(), patience=Patience())
        return Ended(outcome(run.state), self._kfp.link(run.run_id), exit_code(run.state))

    def start(self, name: str, because: str) -> None:
        """Run it now; nobody waits."""
        with self._recurring() as recurring:
            _started(recurring, name, because)

    def known(self) -> Sequence[Kept]:
        """Return every schedule, for triggers."""
        from pipelines.schedules.kept import Kept

        with self._recurring() as recurring:
            return [
                Kept(
                    Schedule.model_validate(
                        {
                            **found.body,
                            "spec": json.loads(found.recurring.parameters["spec"]),
                            "paused": not found.recurring.enabled,
                        }
                    ),
                    0,
                )
                for found in recurring.all()
            ]

    def _seen(self, found: Found, runs: Sequence[Run]) -> Seen:
        body, recurring = found.body, found.recurring
        return Seen(
            name=found.name,
            pipeline=str(body["pipeline"]),
            model=str(body["model"]),
            when=str(found.when),
            paused=not recurring.enabled,
            last=_run(runs[0]) if runs else "",
            ticks=[_run(run) for run in runs],
            body={
                "deadline_s": body["deadline_s"],
                "recurring_run_id": recurring.recurring_run_id,
                "runs": [{"run_id": run.run_id, "state": run.state} for run in runs],
            },
        )

    @contextmanager
    def _recurring(self) -> Iterator[Recurring]:
        from pipelines.schedules.recurring import Recurring
        from pipelines.submission.client import connect

        zone = self._env.get("PENSTOCK_KFP_TIMEZONE") or "UTC"
        with connect(self._kfp) as client:
            yield Recurring(client, self._kfp.experiment, zone)


def _started(recurring: Recurring, name: str, because: str) -> Run:
    from pipelines.submission.publishing import newest

    pipeline = f"penstock-{recurring.get(name).body['pipeline']}"
    version = newest(recurring.client, pipeline).version
    return recurring.trigger(name, because, version.version_id)


def _run(run: Run) -> str:
    began = run.created_at.strftime("%Y-%m-%d %H:%M:%S UTC") if run.created_at else "-"
    return f"{began} {run.name}: {run.state.lower()}"
