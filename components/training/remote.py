"""Runs a training as a TrainJob: creates it, or takes up one that runs, and follows it to its end.

The same work is the same job, so whoever follows may be killed: the next one takes it up. What the
job tells lies in its folder, on a volume that this process sees too.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from components.child import Body, Ran, Voice, refuse
from components.training.train_job import (
    ERROR,
    FOLLOWED,
    LINES,
    REQUEST,
    RESULT,
    WEIGHTS,
    Job,
    State,
    objects,
    require_shared,
    state_of,
)
from penstock.core.errors import DeadlinePassed, NotReady, TrainingFailed
from serving.cluster import Cluster, Object

PERIOD_S = 5.0
"""Between two looks at the job."""

_GONE_S = 600.0
"""How long a job that was deleted may take to be gone: its pods have their grace period."""


def run(
    cluster: Cluster,
    job: Job,
    request: Mapping[str, Any],
    on_line: Callable[[Body], None],
    voice: Voice,
    *,
    pause: Callable[[float], object],
) -> Ran:
    """Return what the job's first process answered.

    Args:
        cluster: The namespace that it runs in.
        job: What is rendered.
        request: As `fit.train` takes it.
        on_line: Told every line of the first process.
        voice: How failures are told.
        pause: Waits that many seconds.

    Raises:
        ConfigurationError: The pods would not see what they are to read.
        LifecycleError: The job failed: what its process said, or what the cluster says.
    """
    require_shared(
        [str(request[key]) for key in ("base", "data", "progress", "scratch")], job.where
    )
    start = time.monotonic()
    folder = Path(job.folder)
    found = cluster.get("TrainJob", job.name)
    if found is None or state_of(found).phase in ("succeeded", "failed"):
        _removed(cluster, job, pause)
        _prepared(folder, request)
        for each in objects(job):
            cluster.create(each)
    try:
        state = _followed(cluster, job, folder, on_line, pause)
    except DeadlinePassed:
        cluster.delete("TrainJob", job.name, foreground=True)  # nobody follows it, and it costs
        raise
    answer = _json(folder / ERROR)
    result = _json(folder / RESULT)
    _removed(cluster, job, pause)
    if state.phase == "failed" or result is None:
        why = state.reason if state.phase == "failed" else "it left no result"
        refuse(voice, {"error": answer or {}}, 1, why, folder)
    for path in sorted((folder / WEIGHTS).iterdir()):
        path.rename(Path(str(request["scratch"])) / path.name)
    return _ran(dict(result or {}), time.monotonic() - start)


def _followed(
    cluster: Cluster,
    job: Job,
    folder: Path,
    on_line: Callable[[Body], None],
    pause: Callable[[float], object],
) -> State:
    told = 0
    while True:
        (folder / FOLLOWED).touch()
        obj = cluster.get("TrainJob", job.name)
        if obj is None:
            raise TrainingFailed(
                f"TrainJob {job.name}: somebody deleted it while it was followed",
                hint="run again: it goes on from its last checkpoint",
            )
        state = state_of(obj)
        if not told:
            on_line({"progress": [0, 1, f"TrainJob {job.name} {state.phase}"]})
        told = _tailed(folder / LINES, told, on_line)
        if state.phase in ("succeeded", "failed"):
            return state
        pause(PERIOD_S)


def _tailed(path: Path, told: int, on_line: Callable[[Body], None]) -> int:
    """Tell the lines from a place on; return the place behind the last whole one."""
    if not path.exists():
        return told
    with path.open("rb") as file:
        file.seek(told)
        content = file.read()
    end = content.rfind(b"\n") + 1
    for line in content[:end].splitlines():
        on_line(json.loads(line))
    return told + end


def _prepared(folder: Path, request: Mapping[str, Any]) -> None:
    """Write the request; weights go beside it, for whoever asked may be another when it ends."""
    shutil.rmtree(folder / WEIGHTS, ignore_errors=True)
    (folder / WEIGHTS).mkdir(parents=True)
    for name in (LINES, RESULT, ERROR):
        (folder / name).unlink(missing_ok=True)
    scratch = folder / f"{REQUEST}.new"
    scratch.write_text(json.dumps({**request, "scratch": str(folder / WEIGHTS)}))
    scratch.replace(folder / REQUEST)


def _removed(cluster: Cluster, job: Job, pause: Callable[[float], object]) -> None:
    """Remove the job with its pods, and wait until it is gone: its name is needed again."""
    cluster.delete("TrainJob", job.name, foreground=True)
    waited_s = 0.0
    while cluster.get("TrainJob", job.name) is not None:
        if waited_s >= _GONE_S:
            raise NotReady(job.name, reason="it was deleted, and is still there", waited_s=waited_s)
        pause(PERIOD_S)
        waited_s += PERIOD_S
    if job.where.runtime is None:
        cluster.delete("TrainingRuntime", job.name)


def _json(path: Path) -> Object | None:
    if not path.exists():
        return None
    body: Object = json.loads(path.read_text())
    return body


def _ran(result: dict[str, Any], wall_s: float) -> Ran:
    return Ran(result, wall_s, int(result.pop("peak_rss_bytes", 0)))
