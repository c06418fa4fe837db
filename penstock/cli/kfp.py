"""What commands about Kubeflow Pipelines share: how it is named, found, waited for and shown."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import TYPE_CHECKING, Any

import click

from penstock.cli.edge import environment, print_json
from penstock.core.errors import Interrupted

if TYPE_CHECKING:
    from pipelines.submission.client import SubmissionClient
    from pipelines.submission.settings import KfpSettings
    from pipelines.submission.values import Run, Task

_ID = re.compile(r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")
_MARKS = {
    "done": "✓",
    "failed": "✗",
    "interrupted": "!",
    "skipped": "-",
    "running": "…",
    "pending": " ",
}


def kfp_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that name Kubeflow Pipelines; the command gets `kfp`.

    Everything else about it, such as accounts and certificates, is in the environment.
    """

    @click.option("--url", metavar="URL", help="Of Kubeflow Pipelines, if not PENSTOCK_KFP_URL.")
    @click.option(
        "-n",
        "--namespace",
        help="Profile there, if not PENSTOCK_KFP_NAMESPACE; for one user, none is needed.",
    )
    @wraps(command)
    def with_kfp(*args: object, url: str | None, namespace: str | None, **kwargs: Any) -> None:
        command(*args, kfp=_settings(url, namespace), **kwargs)

    return with_kfp


def _settings(url: str | None, namespace: str | None) -> KfpSettings:
    from pipelines.submission.settings import KfpSettings

    named = {"PENSTOCK_KFP_URL": url, "PENSTOCK_KFP_NAMESPACE": namespace}
    return KfpSettings.from_env(environment(**{k: v for k, v in named.items() if v}))


wait_option: Callable[[Any], Any] = click.option(
    "--wait", is_flag=True, help="Wait for the end, task by task; the exit code is the outcome."
)
timeout_option: Callable[[Any], Any] = click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="Wait so long at most; the run goes on.",
)


class TaskLines:
    """A line when a task ends, and when the run changes its state."""

    def __init__(self) -> None:
        self._told: set[str] = set()
        self._state = ""

    def __call__(self, run: Run) -> None:
        """Tell what has changed since the last call."""
        from pipelines.submission.states import over, real_tasks

        if run.state != self._state:
            self._state = run.state
            click.echo(f"  run {run.state.lower()}")
        for task in real_tasks(run):
            key = f"{task.task_id}{task.state}"
            if over(task.state) and key not in self._told:
                self._told.add(key)
                click.echo(f"  {task_line(task)}")


def task_line(task: Task) -> str:
    """Return a task as one line: name, seconds, and what went wrong."""
    from pipelines.submission.states import outcome

    seconds = f"{task.seconds:6.0f} s" if task.seconds is not None else " " * 8
    told = task.error.splitlines()[0] if task.error else ""
    return f"{_MARKS[outcome(task.state)]} {task.name:<24}{seconds}  {told}".rstrip()


def document(run: Run, kfp: KfpSettings) -> dict[str, Any]:
    """Return a run for programs."""
    from pipelines.submission.states import exit_code, outcome, over, real_tasks

    return {
        "run_id": run.run_id,
        "name": run.name,
        "state": run.state,
        "outcome": outcome(run.state),
        "exit_code": exit_code(run.state) if over(run.state) else None,
        "created_at": run.created_at and run.created_at.isoformat(),
        "finished_at": run.finished_at and run.finished_at.isoformat(),
        "pipeline_id": run.pipeline_id,
        "version_id": run.version_id,
        "recurring_run_id": run.recurring_run_id,
        "url": kfp.link(run.run_id),
        "error": run.error,
        "tasks": [
            {"name": t.name, "state": t.state, "seconds": t.seconds, "error": t.error}
            for t in real_tasks(run)
        ],
    }


def find(client: SubmissionClient, run: str) -> Run:
    """Return the run of this identifier, or the newest of this name."""
    from pipelines.submission.errors import Missing

    if _ID.match(run):
        return client.runs.get(run)
    found = client.runs.list(name=run, limit=1)
    if not found:
        raise Missing(f"run {run}: there is none", hint="penstock runs list shows them")
    return client.runs.get(found[0].run_id)


def end(run: Run, kfp: KfpSettings, output: str) -> None:
    """Tell how a run ended; its outcome is the exit code."""
    from pipelines.submission.states import exit_code
    from pipelines.submission.waiting import raise_if_bad

    if output == "json":
        print_json(document(run, kfp))
        raise SystemExit(exit_code(run.state))
    raise_if_bad(run, kfp.link(run.run_id))
    began, ended = run.created_at, run.finished_at
    took = f" in {(ended - began).total_seconds():.0f} s" if began and ended else ""
    click.echo(f"done{took}; {kfp.link(run.run_id)}")


def follow(
    client: SubmissionClient, run_id: str, kfp: KfpSettings, output: str, timeout_s: float | None
) -> None:
    """Wait for a run, show it, and end as it ends."""
    from pipelines.submission.patience import Patience
    from pipelines.submission.waiting import wait

    watch = (lambda _: None) if output == "json" else TaskLines()
    with _leaving(run_id):
        run = wait(client.runs, run_id, watch=watch, patience=Patience(), timeout_s=timeout_s)
    end(run, kfp, output)


@contextmanager
def _leaving(run_id: str) -> Iterator[None]:
    """Ctrl-C ends the waiting, not the run."""
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted(
            f"interrupted; run {run_id} goes on",
            hint=f"penstock runs show {run_id} --wait, or penstock runs cancel {run_id}",
        ) from None
