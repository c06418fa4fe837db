"""Waiting for a run: every final state ends it, and a server that is away for a while does not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from pipelines.submission.errors import Rejected, RunEnded, Unavailable, Unfinished
from pipelines.submission.patience import Patience
from pipelines.submission.states import exit_code, failed_task, outcome, over
from pipelines.submission.values import Run

_LAGGING = 4
"""How often the tasks are read again after the run is over: they lag behind its state."""


class Reads(Protocol):
    """What waiting needs of `Runs`."""

    def get(self, run_id: str) -> Run:
        """Return a run."""


def wait(
    runs: Reads,
    run_id: str,
    *,
    watch: Callable[[Run], object],
    patience: Patience,
    timeout_s: float | None = None,
) -> Run:
    """Return a run when it is over.

    Args:
        runs: The server's.
        run_id: Which one.
        watch: Called with every sight of it.
        patience: Clock and pauses; one reading is tried for its `total_s`.
        timeout_s: How long to wait; without one, as long as it takes.

    Raises:
        Unfinished: When the time is up; the run goes on.
        Unavailable: When the server cannot be reached; the run goes on.
    """
    start = patience.clock()
    lagging = _LAGGING
    while True:
        try:
            run = runs.get(run_id)
        except (Rejected, Unavailable) as problem:
            raise Unavailable(
                f"{problem}; the run goes on", hint=f"penstock runs show {run_id} --wait"
            ) from problem
        watch(run)
        waited_s = patience.clock() - start
        if over(run.state):
            if lagging == 0 or all(over(task.state) for task in run.tasks):
                return run
            lagging -= 1
            patience.pause(1.0)
            continue
        pause_s = poll_s(waited_s)
        if timeout_s is not None and waited_s + pause_s > timeout_s:
            raise Unfinished(
                f"run {run.name} is {run.state} after {waited_s:.0f} s; it goes on",
                hint=f"penstock runs show {run_id} --wait, or penstock runs cancel {run_id}",
            )
        patience.pause(pause_s)


def poll_s(waited_s: float) -> float:
    """Return how long to wait before looking again: two seconds at first, ten after minutes."""
    return min(10.0, 2.0 + waited_s / 60)


def raise_if_bad(run: Run, link: str = "") -> None:
    """Raise `RunEnded` for a run that is over and did not succeed.

    Args:
        run: A run that is over.
        link: Where a person sees it.
    """
    code = exit_code(run.state)
    if code == 0:
        return
    failed = failed_task(run)
    told = f": task {failed.name}: {failed.error or 'no reason is given'}" if failed else ""
    told = told or (f": {run.error}" if run.error else "")
    words = {"interrupted": "was canceled", "skipped": "was skipped: nothing was done"}
    ended = words.get(outcome(run.state), "failed")
    raise RunEnded(
        f"run {run.name} {ended}{told}",
        hint=f"penstock runs logs {run.run_id}{f'; {link}' if link else ''}",
        code=code,
    )
