"""What Kubeflow Pipelines keeps, as frozen values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

State = Literal[
    "RUNTIME_STATE_UNSPECIFIED",
    "PENDING",
    "RUNNING",
    "SUCCEEDED",
    "SKIPPED",
    "FAILED",
    "CANCELING",
    "CANCELED",
    "PAUSED",
]
"""State of a run or a task, in the API's words (`v2beta1RuntimeState`)."""


@dataclass(frozen=True, slots=True)
class Health:
    """What the API server says of itself."""

    multi_user: bool = False
    """Whether every request must name a namespace, or an object in one."""


@dataclass(frozen=True, slots=True)
class Experiment:
    """A group of runs."""

    experiment_id: str
    name: str
    namespace: str = ""


@dataclass(frozen=True, slots=True)
class Pipeline:
    """A pipeline; its versions hold the IR."""

    pipeline_id: str
    name: str
    namespace: str = ""
    description: str = ""
    created_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a pipeline."""

    pipeline_id: str
    version_id: str
    name: str
    description: str = ""
    created_at: datetime | None = None
    ir: Mapping[str, Any] = field(default_factory=dict)
    """The compiled pipeline as the server keeps it: `pipeline_spec` and `platform_spec`, or the
    first of them alone."""

    @property
    def parameters(self) -> list[str]:
        """Names of what it takes."""
        spec = self.ir.get("pipeline_spec") or self.ir
        return list(spec.get("root", {}).get("inputDefinitions", {}).get("parameters", {}))


@dataclass(frozen=True, slots=True)
class Task:
    """One task of a run, as the server tells of it; `task_details` lag behind the run's state."""

    task_id: str
    name: str
    state: State
    started_at: datetime | None = None
    ended_at: datetime | None = None
    error: str = ""
    pods: tuple[str, ...] = ()
    """Names of its pods, for their logs."""

    @property
    def seconds(self) -> float | None:
        """How long it took; None while it runs."""
        if self.started_at is None or self.ended_at is None:
            return None
        return max(0.0, (self.ended_at - self.started_at).total_seconds())


@dataclass(frozen=True, slots=True)
class Run:
    """A run of a pipeline."""

    run_id: str
    name: str
    state: State
    experiment_id: str = ""
    pipeline_id: str = ""
    """Empty for a run whose IR was sent inline."""

    version_id: str = ""
    recurring_run_id: str = ""
    """The recurring run that made it, if one did."""

    created_at: datetime | None = None
    finished_at: datetime | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    error: str = ""
    tasks: tuple[Task, ...] = ()
    """In the order they began."""

    archived: bool = False


@dataclass(frozen=True, slots=True)
class NewRun:
    """A run to create, of a pipeline the server has."""

    name: str
    """Unique: after an answer that got lost, it is found by this name (`naming.run_name`)."""

    experiment_id: str
    pipeline_id: str
    version_id: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    service_account: str = ""
    description: str = ""


@dataclass(frozen=True, slots=True)
class Trigger:
    """When a recurring run fires; either `cron` or `interval_s`."""

    cron: str = ""
    """Six fields, seconds first, in the server's time zone (`CRON_SCHEDULE_TIMEZONE`)."""

    interval_s: int = 0
    """Seconds between fires."""

    start: datetime | None = None
    end: datetime | None = None


@dataclass(frozen=True, slots=True)
class NewRecurringRun:
    """A recurring run to create; of a pipeline, so that each tick takes its newest version.

    A pinned version, or IR inline, would be compiled once at creation: parameters' macros would
    not be expanded, and a later version would never run.
    """

    name: str
    """Unique among the recurring runs of the experiment: after an answer that got lost, it is
    found by this name."""

    experiment_id: str
    pipeline_id: str
    trigger: Trigger
    parameters: Mapping[str, Any] = field(default_factory=dict)
    max_concurrency: int = 1
    """Runs of it at a time, 1 to 10."""

    catch_up: bool = False
    """Whether ticks that were missed are made up for."""

    enabled: bool = True
    service_account: str = ""
    description: str = ""


@dataclass(frozen=True, slots=True)
class RecurringRun:
    """A recurring run the server has."""

    recurring_run_id: str
    name: str
    experiment_id: str
    trigger: Trigger
    enabled: bool
    pipeline_id: str = ""
    version_id: str = ""
    """Empty: every tick takes the newest version."""

    parameters: Mapping[str, Any] = field(default_factory=dict)
    max_concurrency: int = 1
    catch_up: bool = True
    description: str = ""
    namespace: str = ""
    created_at: datetime | None = None
    error: str = ""
