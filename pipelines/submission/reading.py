"""From the API's JSON to values. Pure; what a server leaves out is empty, not an error."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, cast, get_args

from pipelines.submission.values import (
    Experiment,
    Pipeline,
    RecurringRun,
    Run,
    State,
    Task,
    Trigger,
    Version,
)

Json = Mapping[str, Any]


def experiment(body: Json) -> Experiment:
    """Return an experiment."""
    return Experiment(_text(body, "experiment_id"), _name(body), _text(body, "namespace"))


def pipeline(body: Json) -> Pipeline:
    """Return a pipeline."""
    return Pipeline(
        pipeline_id=_text(body, "pipeline_id"),
        name=_text(body, "name") or _name(body),
        namespace=_text(body, "namespace"),
        description=_text(body, "description"),
        created_at=when(body.get("created_at")),
    )


def version(body: Json) -> Version:
    """Return a version of a pipeline."""
    return Version(
        pipeline_id=_text(body, "pipeline_id"),
        version_id=_text(body, "pipeline_version_id"),
        name=_text(body, "name") or _name(body),
        description=_text(body, "description"),
        created_at=when(body.get("created_at")),
        ir=body.get("pipeline_spec") or {},
    )


def run(body: Json) -> Run:
    """Return a run, its tasks in the order they began."""
    reference = body.get("pipeline_version_reference") or {}
    details = (body.get("run_details") or {}).get("task_details") or ()
    tasks = [task(each) for each in details]
    first = datetime.max.replace(tzinfo=UTC)
    return Run(
        run_id=_text(body, "run_id"),
        name=_name(body),
        state=state(body.get("state")),
        experiment_id=_text(body, "experiment_id"),
        pipeline_id=_text(reference, "pipeline_id"),
        version_id=_text(reference, "pipeline_version_id"),
        recurring_run_id=_text(body, "recurring_run_id"),
        created_at=when(body.get("created_at")),
        finished_at=when(body.get("finished_at")),
        parameters=(body.get("runtime_config") or {}).get("parameters") or {},
        error=_error(body),
        tasks=tuple(sorted(tasks, key=lambda each: (each.started_at or first, each.name))),
        archived=body.get("storage_state") == "ARCHIVED",
    )


def task(body: Json) -> Task:
    """Return a task of a run."""
    children = body.get("child_tasks") or ()
    pods = [_text(body, "pod_name"), *(_text(each, "pod_name") for each in children)]
    return Task(
        task_id=_text(body, "task_id"),
        name=_name(body),
        state=state(body.get("state")),
        started_at=when(body.get("start_time")),
        ended_at=when(body.get("end_time")),
        error=_error(body),
        pods=tuple(dict.fromkeys(pod for pod in pods if pod)),
    )


def recurring_run(body: Json) -> RecurringRun:
    """Return a recurring run."""
    reference = body.get("pipeline_version_reference") or {}
    return RecurringRun(
        recurring_run_id=_text(body, "recurring_run_id"),
        name=_name(body),
        experiment_id=_text(body, "experiment_id"),
        trigger=trigger(body.get("trigger") or {}),
        enabled=_enabled(body),
        pipeline_id=_text(reference, "pipeline_id"),
        version_id=_text(reference, "pipeline_version_id"),
        parameters=(body.get("runtime_config") or {}).get("parameters") or {},
        max_concurrency=int(body.get("max_concurrency") or 1),
        catch_up=not body.get("no_catchup"),
        description=_text(body, "description"),
        namespace=_text(body, "namespace"),
        created_at=when(body.get("created_at")),
        error=_error(body),
    )


def trigger(body: Json) -> Trigger:
    """Return when it fires."""
    cron, periodic = body.get("cron_schedule") or {}, body.get("periodic_schedule") or {}
    bounds = cron or periodic
    return Trigger(
        cron=_text(cron, "cron"),
        interval_s=int(periodic.get("interval_second") or 0),
        start=when(bounds.get("start_time")),
        end=when(bounds.get("end_time")),
    )


def state(given: object) -> State:
    """Return a state; one that is not known is unspecified, and not terminal."""
    known = given if given in get_args(State) else "RUNTIME_STATE_UNSPECIFIED"
    return cast("State", known)


def when(given: object) -> datetime | None:
    """Return a time; the epoch stands for none."""
    if not isinstance(given, str):
        return None
    try:
        read = datetime.fromisoformat(given)
    except ValueError:
        return None
    found = read if read.tzinfo else read.replace(tzinfo=UTC)
    return found if found.timestamp() > 0 else None


def _enabled(body: Json) -> bool:
    """`status` is what the server keeps, `mode` what was asked for; old servers tell one."""
    if body.get("status") in ("ENABLED", "DISABLED"):
        return bool(body["status"] == "ENABLED")
    return bool(body.get("mode") == "ENABLE")


def _name(body: Json) -> str:
    return _text(body, "display_name") or _text(body, "name")


def _text(body: Json, name: str) -> str:
    value = body.get(name)
    return value if isinstance(value, str) else ""


def _error(body: Json) -> str:
    error = body.get("error") or {}
    return str(error.get("message") or "") if isinstance(error, Mapping) else ""
