"""What the server keeps, and how a run goes on when nobody executes it."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from tests.fakes.kfp.clock import shown
from tests.fakes.kfp.ir import spec_of

FINAL = ("SUCCEEDED", "SKIPPED", "FAILED", "CANCELED")
Row = dict[str, Any]


def new_id() -> str:
    return str(uuid.uuid4())


@dataclass
class RunRow:
    """One run."""

    body: Row
    """As the API shows it, without state and tasks."""

    ir: Mapping[str, Any]
    executed_with: Mapping[str, Any]
    """Parameters with their macros expanded: what the tasks see."""

    state: str = "PENDING"
    script: list[str] = field(default_factory=list)
    """States it goes through, one per time that it is read."""

    history: list[tuple[str, datetime]] = field(default_factory=list)
    tasks: list[Row] = field(default_factory=list)
    logs: dict[str, str] = field(default_factory=dict)
    """By pod."""

    unsignalled: bool = False
    """An executor that cannot be signalled: terminated, the run ends FAILED, not CANCELED."""

    held: bool = False
    """Its workflow is gone: nothing moves any more."""

    executed: bool = False
    """It runs for real: its tasks are told by what runs them."""

    finished_at: datetime | None = None
    attempt: int = 0

    def become(self, state: str, now: datetime) -> None:
        if state == self.state:
            return
        self.state = state
        self.history.append((state, now))
        self.finished_at = now if state in FINAL else None

    def advance(self, now: datetime) -> None:
        """Take the next step; the tasks follow one reading later."""
        if self.executed:
            return
        self._follow(now)
        if self.held or self.state in FINAL:
            return
        if self.state == "CANCELING":
            self.become("FAILED" if self.unsignalled else "CANCELED", now)
        elif self.script:
            self.become(self.script.pop(0), now)

    def _follow(self, now: datetime) -> None:
        names = spec_of(self.ir).get("root", {}).get("dag", {}).get("tasks", {})
        known = {task["display_name"] for task in self.tasks}
        if self.state != "PENDING":
            for name in names:
                if name not in known:
                    self.tasks.append(task_row(name, self.body["run_id"], now))
        for task in self.tasks:
            if task["state"] not in FINAL:
                task["state"] = self.state
                if self.state in FINAL:
                    task["end_time"] = shown(now)

    def show(self) -> Row:
        history = [{"state": state, "update_time": shown(then)} for state, then in self.history]
        body = {
            **self.body,
            "state": self.state,
            "state_history": history,
            "finished_at": shown(self.finished_at),
        }
        if self.tasks:
            body["run_details"] = {"task_details": self.tasks}
        return body


def task_row(name: str, run_id: str, now: datetime, state: str = "RUNNING") -> Row:
    """Return a task as the API shows it."""
    return {
        "run_id": run_id,
        "task_id": new_id(),
        "display_name": name,
        "create_time": shown(now),
        "start_time": shown(now),
        "state": state,
        "child_tasks": [{"pod_name": f"{name}-{run_id[:8]}-main"}],
    }


@dataclass
class ScheduleRow:
    """One recurring run."""

    body: Row
    ir: Mapping[str, Any] | None
    """Compiled in: what was pinned or sent inline. None: every tick takes the newest version."""

    enabled: bool
    resource: str
    """Name of the ScheduledWorkflow."""

    last: datetime
    fired: int = 0

    def show(self) -> Row:
        return {**self.body, "status": "ENABLED" if self.enabled else "DISABLED"}
