"""What a run's state means: whether it is over, and the exit code. Pure."""

from __future__ import annotations

from typing import Literal

from pipelines.submission.values import Run, State, Task

Outcome = Literal["pending", "running", "done", "failed", "interrupted", "skipped"]

_OUTCOMES: dict[State, Outcome] = {
    "RUNTIME_STATE_UNSPECIFIED": "pending",
    "PENDING": "pending",
    "RUNNING": "running",
    "PAUSED": "running",
    "CANCELING": "running",
    "SUCCEEDED": "done",
    "SKIPPED": "skipped",
    "FAILED": "failed",
    "CANCELED": "interrupted",
}
_CODES: dict[Outcome, int] = {"done": 0, "failed": 1, "interrupted": 130, "skipped": 1}
"""A run that was skipped has done nothing of what it was asked to do."""


def outcome(state: State) -> Outcome:
    """Return a state in Penstock's words."""
    return _OUTCOMES[state]


def over(state: State) -> bool:
    """Return whether a state is final: SUCCEEDED, SKIPPED, FAILED and CANCELED are."""
    return outcome(state) not in ("pending", "running")


def exit_code(state: State) -> int:
    """Return the exit code of a final state."""
    return _CODES[outcome(state)]


def failed_task(run: Run) -> Task | None:
    """Return the task that failed first: the innermost, since groups end after what is in them."""
    failed = [task for task in run.tasks if task.state == "FAILED"]
    return min(failed, key=lambda t: (t.ended_at is None, t.ended_at), default=None)


def real_tasks(run: Run) -> tuple[Task, ...]:
    """Return the tasks a person knows: without the drivers and the root of the graph."""
    return tuple(task for task in run.tasks if not _internal(task.name))


def _internal(name: str) -> bool:
    return name in ("root", "executor") or name.endswith("-driver") or name.startswith("root.")
