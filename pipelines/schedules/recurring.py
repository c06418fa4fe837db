"""Schedules as recurring runs of Kubeflow Pipelines.

A recurring run names the pipeline only, so every tick takes its newest version. No call changes
one, so a change is a replacement, in an order that kills no run and loses no schedule: the old one
is disabled, its run in flight ends, the new one is created, the old one is deleted. Done again
after it broke off, it goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from components.steps.parameters import as_parameter
from penstock.core.errors import ConfigurationError
from penstock.core.schedules import Cron, Schedule, When
from pipelines.submission.client import SubmissionClient
from pipelines.submission.errors import Missing, Unfinished
from pipelines.submission.naming import run_name
from pipelines.submission.patience import Patience
from pipelines.submission.publishing import Published
from pipelines.submission.states import over
from pipelines.submission.values import NewRecurringRun, NewRun, RecurringRun, Run, Trigger
from pipelines.submission.waiting import poll_s

_MARK = "penstock schedule "
_SHORT = 8
_TICKS = 20


@dataclass(frozen=True, slots=True)
class Found:
    """A schedule on the server."""

    name: str
    body: Mapping[str, Any]
    """What was written beside it: pipeline, model, when, deadline_s."""

    recurring: RecurringRun

    @property
    def when(self) -> When:
        """Its clock."""
        return When.model_validate(self.body["when"])


@dataclass(frozen=True, slots=True)
class Recurring:
    """The schedules of one experiment.

    Attributes:
        client: The server.
        experiment: Where they stand.
        zone: Time zone of the server's cron: `CRON_SCHEDULE_TIMEZONE` there.
        patience: Clock and pauses while a run in flight ends.
    """

    client: SubmissionClient
    experiment: str
    zone: str = "UTC"
    patience: Patience = field(default_factory=Patience)

    def put(self, schedule: Schedule, published: Published) -> str:
        """Create, replace or leave a schedule; return which: created, replaced, unchanged.

        Args:
            schedule: As it shall be.
            published: Its pipeline on the server.

        Raises:
            ConfigurationError: Its time zone is not the server's.
            Unfinished: The run in flight did not end in its deadline; nothing was created yet.
        """
        new = self._new(schedule, published)
        there = [found.recurring for found in self._found() if found.name == schedule.name]
        same = next((each for each in there if each.name == new.name), None)
        others = [each for each in there if same is None or each is not same]
        for old in others:
            self.client.schedules.disable(old.recurring_run_id)
            self._until_idle(old, schedule.deadline_s)
        if same is None:
            self.client.schedules.create(new)
        elif same.enabled == schedule.paused:
            self._switch(same, paused=schedule.paused)
        for old in others:
            self.client.schedules.delete(old.recurring_run_id)
        return "replaced" if others else "created" if same is None else "unchanged"

    def all(self) -> Sequence[Found]:
        """Return every schedule, by name."""
        return sorted(self._found(), key=lambda found: found.name)

    def get(self, name: str) -> Found:
        """Return one; `Missing` names those that there are."""
        found = self._found()
        for each in found:
            if each.name == name:
                return each
        known = ", ".join(sorted(each.name for each in found)) or "none"
        raise Missing(
            f"no schedule {name!r} in experiment {self.experiment}; there are: {known}",
            hint="penstock schedule list",
        )

    def runs(self, found: Found) -> Sequence[Run]:
        """Return the last runs of a schedule, the newest first."""
        identity = found.recurring.recurring_run_id
        return self.client.runs.list(recurring_run_id=identity, limit=_TICKS)

    def pause(self, name: str, *, paused: bool) -> None:
        """Let it fire no more, or again."""
        self._switch(self.get(name).recurring, paused=paused)

    def delete(self, name: str) -> None:
        """Remove it; a run in flight goes on."""
        for found in self._found():
            if found.name == name:
                self.client.schedules.disable(found.recurring.recurring_run_id)
                self.client.schedules.delete(found.recurring.recurring_run_id)

    def trigger(self, name: str, because: str, version_id: str) -> Run:
        """Create a run with what the schedule says, now.

        Args:
            name: The schedule's.
            because: What asked for it.
            version_id: The newest of its pipeline.
        """
        found = self.get(name)
        parameters = dict(found.recurring.parameters)
        if "because" in parameters:
            parameters["because"] = because
        return self.client.runs.create(
            NewRun(
                name=run_name(name, datetime.now(UTC), secrets.token_hex(3)),
                experiment_id=found.recurring.experiment_id,
                pipeline_id=found.recurring.pipeline_id,
                version_id=version_id,
                parameters=parameters,
                description=f"penstock schedule trigger {name}: {because}",
            )
        )

    def require(self, schedule: Schedule) -> None:
        """Raise what keeps a schedule from being created, before anything changes."""
        when = schedule.when
        if when.cron is not None and when.zone != self.zone:
            raise ConfigurationError(
                f"--timezone: found {when.zone}; allowed: {self.zone}, which is how this Kubeflow "
                "Pipelines reads cron: all schedules of a server have one zone",
                hint="write the cron line in that zone; if CRON_SCHEDULE_TIMEZONE of its API server"
                " is another one, export PENSTOCK_KFP_TIMEZONE",
            )

    def _new(self, schedule: Schedule, published: Published) -> NewRecurringRun:
        self.require(schedule)
        when = schedule.when
        cron = "" if when.cron is None else Cron.parse(when.cron).six
        group = self.client.experiments.ensure(self.experiment)
        return NewRecurringRun(
            name=f"{schedule.name}.{_digest(schedule)}",
            experiment_id=group.experiment_id,
            pipeline_id=published.pipeline.pipeline_id,
            trigger=Trigger(cron=cron, interval_s=when.every_s or 0),
            parameters=parameters(schedule),
            enabled=not schedule.paused,
            description=_MARK + json.dumps(_body(schedule), sort_keys=True),
        )

    def _found(self) -> list[Found]:
        group = self.client.experiments.named(self.experiment)
        if group is None:
            return []
        listed = self.client.schedules.list(experiment_id=group.experiment_id)
        return [
            Found(str(body["name"]), body, each)
            for each in listed
            if (body := _ours(each.description)) is not None
        ]

    def _switch(self, recurring: RecurringRun, *, paused: bool) -> None:
        act = self.client.schedules.disable if paused else self.client.schedules.enable
        act(recurring.recurring_run_id)

    def _until_idle(self, old: RecurringRun, within_s: float) -> None:
        start = self.patience.clock()
        while going := self._going(old):
            waited_s = self.patience.clock() - start
            if waited_s > within_s:
                raise Unfinished(
                    f"run {going} of the old schedule goes on after {waited_s:.0f} s; the old one "
                    "is disabled, the new one is not there yet",
                    hint="penstock runs cancel it, or wait; then the same command again",
                )
            self.patience.pause(poll_s(waited_s))

    def _going(self, recurring: RecurringRun) -> str:
        found = self.client.runs.list(recurring_run_id=recurring.recurring_run_id, limit=_TICKS)
        going = (run for run in found if not over(run.state))
        return next((r.name for r in going if not over(self.client.runs.get(r.run_id).state)), "")


def parameters(schedule: Schedule) -> dict[str, Any]:
    """Return what every run of a schedule is given."""
    spec = as_parameter(json.dumps(schedule.spec))
    because = {"because": f"schedule {schedule.name}"} if schedule.pipeline == "retrain" else {}
    deadline = {"deadline_s": float(schedule.deadline_s)}
    return {"spec": spec, **schedule.parameters, **because, **deadline}


def _body(schedule: Schedule) -> dict[str, Any]:
    return schedule.model_dump(mode="json", exclude={"spec", "parameters", "paused"})


def _digest(schedule: Schedule) -> str:
    text = json.dumps(schedule.model_dump(mode="json", exclude={"paused"}), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:_SHORT]


def _ours(description: str) -> dict[str, Any] | None:
    if not description.startswith(_MARK):
        return None
    try:
        body: dict[str, Any] = json.loads(description.removeprefix(_MARK))
    except ValueError:
        return None  # somebody's own words
    return body
