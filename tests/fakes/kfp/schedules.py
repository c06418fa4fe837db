"""Recurring runs: created, and fired by a controller that looks every ten seconds."""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from tests.fakes.kfp import ir as irs
from tests.fakes.kfp.bodies import check
from tests.fakes.kfp.clock import Cron, next_fire, read, shown
from tests.fakes.kfp.failure import Failure, absent, internal, invalid
from tests.fakes.kfp.rows import FINAL, Row, ScheduleRow
from tests.fakes.kfp.store import Store

RESYNC_S = 10
_MACRO = re.compile(r"\[\[(CurrentTime(?:\.(?P<layout>[^\]]+))?|RunUUID)\]\]")
_LAYOUT = (("2006", "%Y"), ("01", "%m"), ("02", "%d"), ("15", "%H"), ("04", "%M"), ("05", "%S"))


class Schedules:
    """The recurring runs of a store, and their controller."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def create(self, body: Row) -> Row:
        check(body, "V2beta1RecurringRun")
        name = body.get("display_name")
        if not name:
            raise internal("Recurring run's name cannot be empty")
        trigger = _trigger(body)
        most = int(body.get("max_concurrency") or 0)
        if not 1 <= most <= 10:
            raise invalid(
                "Max concurrency of a recurring run must be at least 1 and at most 10. Received "
                f"{most}"
            )
        experiment = self._store.experiment(body.get("experiment_id", ""))
        pinned, where = self._source(body)
        now = self._store.clock.now()
        row = ScheduleRow(
            {
                "recurring_run_id": str(uuid.uuid4()),
                "display_name": name,
                "description": body.get("description", ""),
                "experiment_id": experiment["experiment_id"],
                "namespace": experiment["namespace"] or "kubeflow",
                "created_at": shown(now),
                "updated_at": shown(now),
                "max_concurrency": str(most),
                "no_catchup": bool(body.get("no_catchup", False)),
                "trigger": trigger,
                "runtime_config": body.get("runtime_config") or {},
                **where,
            },
            pinned,
            enabled=body.get("mode") == "ENABLE",
            resource=f"{re.sub('[^a-z0-9]', '', name.lower())[:30] or 'run'}{uuid.uuid4().hex[:5]}",
            last=now,
        )
        self._store.schedules.append(row)
        return row.show()

    def _source(self, body: Row) -> tuple[Mapping[str, Any] | None, Row]:
        reference = body.get("pipeline_version_reference") or {}
        parameters = (body.get("runtime_config") or {}).get("parameters") or {}
        if reference.get("pipeline_version_id") or body.get("pipeline_spec"):
            try:
                pinned, where = self._store.source(body)
            except Failure as problem:
                raise internal(
                    f"Failed to create a recurring run with an invalid pipeline spec manifest: "
                    f"{problem.inside}"
                ) from problem
            irs.check_parameters(pinned, parameters)
            return pinned, where
        if not reference.get("pipeline_id"):
            raise Failure(500, "Internal error: Cannot create a job with an empty pipeline ID")
        newest = self._store.newest(reference["pipeline_id"])
        irs.check_parameters(newest["pipeline_spec"], parameters)
        kept = {"pipeline_id": reference["pipeline_id"]}
        return None, {"pipeline_version_reference": kept}

    def get(self, recurring_run_id: str) -> ScheduleRow:
        for row in self._store.schedules:
            if row.body["recurring_run_id"] == recurring_run_id:
                return row
        raise absent("Job", recurring_run_id)

    def change(self, recurring_run_id: str, *, enabled: bool) -> Row:
        row = self.get(recurring_run_id)
        row.enabled = enabled
        row.body["updated_at"] = shown(self._store.clock.now())
        return {}

    def delete(self, recurring_run_id: str, policy: str) -> Row:
        """Delete it, and with it the workflows it owns, unless they are left as orphans."""
        self._store.schedules.remove(self.get(recurring_run_id))
        if policy == "ORPHAN":
            return {}
        for run in self._store.runs:
            mine = run.body.get("recurring_run_id") == recurring_run_id
            if mine and run.state not in FINAL:
                run.held = True  # the workflow is gone, and nobody tells the database
        return {}

    def advance(self, seconds: float) -> None:
        """Let time pass, and the controller look as often as it does."""
        left = seconds
        while left > 0:
            step = min(RESYNC_S, left)
            self._store.clock.ahead_s += step
            left -= step
            self.look()

    def look(self) -> None:
        """Fire what is due, once each."""
        now = self._store.clock.now()
        for row in list(self._store.schedules):
            due = next_fire(row.body["trigger"], row.last, now, catch_up=not row.body["no_catchup"])
            active = [
                run
                for run in self._store.runs
                if run.body.get("recurring_run_id") == row.body["recurring_run_id"]
                and run.state not in FINAL
            ]
            if row.enabled and due <= now and len(active) < int(row.body["max_concurrency"]):
                row.fired += 1
                row.last = due
                self._fire(row, now)

    def _fire(self, row: ScheduleRow, now: datetime) -> None:
        given = row.body["runtime_config"].get("parameters") or {}
        numbered = f"{row.resource}-{row.fired}"
        body = {
            "display_name": f"{numbered}-{_fnv32a(numbered)}",
            "experiment_id": row.body["experiment_id"],
            "recurring_run_id": row.body["recurring_run_id"],
            "runtime_config": {"parameters": dict(given)},
        }
        if row.ir is not None:  # compiled at creation: macros are not expanded
            source = {k: v for k, v in row.body.items() if k in _SOURCES}
            self._store.create_run({**body, **source}, given)
            return
        body["pipeline_version_reference"] = dict(row.body["pipeline_version_reference"])
        self._store.create_run(body, {k: _expanded(v, now) for k, v in given.items()})


_SOURCES = ("pipeline_version_reference", "pipeline_spec")


def _trigger(body: Mapping[str, Any]) -> Row:
    trigger: Row = body.get("trigger") or {}
    if not trigger:
        raise internal("API Trigger cannot be nil")
    if "cron_schedule" in trigger:
        Cron(trigger["cron_schedule"].get("cron", ""))
    elif int(trigger["periodic_schedule"].get("interval_second") or 0) < 1:
        raise invalid(
            "Found invalid period schedule interval "
            f"{trigger['periodic_schedule'].get('interval_second')}. Set at interval to least 1 "
            "second"
        )
    for bounds in trigger.values():
        start, end = read(bounds.get("start_time")), read(bounds.get("end_time"))
        if start and end and start >= end:
            raise invalid("start time must be before end time")
    return trigger


def _expanded(value: Any, now: datetime) -> Any:
    if not isinstance(value, str):
        return value

    def told(found: re.Match[str]) -> str:
        if found[1] == "RunUUID":
            return str(uuid.uuid4())
        layout = found["layout"] or "20060102150405"
        for go, python in _LAYOUT:
            layout = layout.replace(go, python)
        return now.strftime(layout)

    return _MACRO.sub(told, value)


def _fnv32a(text: str) -> int:
    found = 0x811C9DC5
    for byte in text.encode():
        found = ((found ^ byte) * 0x01000193) & 0xFFFFFFFF
    return found
