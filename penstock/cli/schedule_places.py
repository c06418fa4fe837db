"""Where schedules are kept, as the commands see it: this machine, or Kubeflow Pipelines."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

from penstock.cli.edge import need, settings_of
from penstock.core.errors import ConfigurationError
from penstock.core.schedules import Schedule

if TYPE_CHECKING:
    from pipelines.schedules.kept import Kept, Tick


@dataclass(frozen=True, slots=True)
class Seen:
    """A schedule, as people and programs are told of it."""

    name: str
    pipeline: str
    model: str
    when: str
    paused: bool
    next_at: str = ""
    last: str = ""
    ticks: Sequence[str] = ()
    body: Mapping[str, Any] = field(default_factory=dict)

    def line(self) -> str:
        """Return it in one line."""
        follows = "paused" if self.paused else f"next {self.next_at}" if self.next_at else "on"
        last = f"; last: {self.last}" if self.last else ""
        return f"{self.name:<20} {self.pipeline} of {self.model}, {self.when}; {follows}{last}"

    def document(self) -> dict[str, Any]:
        """Return it for programs."""
        return {
            "name": self.name,
            "pipeline": self.pipeline,
            "model": self.model,
            "when": self.when,
            "paused": self.paused,
            "next_at": self.next_at,
            **self.body,
        }


@dataclass(frozen=True, slots=True)
class Ended:
    """How a run that was asked for ended."""

    outcome: str
    told: str
    exit_code: int


class Place(Protocol):
    """What keeps schedules."""

    def put(self, schedule: Schedule) -> list[str]:
        """Create or replace one; return what to tell."""
        ...

    def all(self) -> list[Seen]:
        """Return all of them."""
        ...

    def get(self, name: str) -> Seen:
        """Return one, with its ticks."""
        ...

    def pause(self, name: str, *, paused: bool) -> list[str]:
        """Stop it or let it go on; return what to tell."""
        ...

    def delete(self, name: str) -> list[str]:
        """Remove it; return what to tell."""
        ...

    def trigger(self, name: str, because: str) -> Ended:
        """Run it now, and wait."""
        ...

    def start(self, name: str, because: str) -> None:
        """Run it now; nobody waits."""
        ...

    def known(self) -> Sequence[Kept]:
        """Return every schedule, for triggers."""
        ...


def local_place(env: dict[str, str]) -> Place:
    """Return this machine."""
    need("local", "apscheduler")
    return _Local(env)


def cluster_place(env: dict[str, str]) -> Place:
    """Return Kubeflow Pipelines; not asked yet."""
    from pipelines.submission.settings import KfpSettings

    if not env.get("PENSTOCK_KFP_URL") and not env.get("KUBERNETES_SERVICE_HOST"):
        raise ConfigurationError(
            "no Kubeflow Pipelines was named, and --local was not given",
            hint="export PENSTOCK_KFP_URL=..., or add --local for this machine",
        )
    from penstock.cli.schedule_cluster import OnCluster

    return OnCluster(KfpSettings.from_env(env), env)


class _Local:
    """Files on this machine, and a process that looks at them."""

    def __init__(self, env: dict[str, str]) -> None:
        from penstock.cli.schedule_tick import folder_of
        from pipelines.schedules.kept import Schedules

        self._env = env
        self._settings = settings_of(env)
        self._store = Schedules(folder_of(self._settings))

    def put(self, schedule: Schedule) -> list[str]:
        from penstock.cli.schedule_serve import start
        from pipelines.schedules.clock import next_fire

        next_fire(schedule.when, datetime.now(UTC))  # refuses what never comes
        before = self._store.find(schedule.name)
        if before is not None and before.schedule == schedule:
            told = f"{schedule.name}: unchanged"
        else:
            self._store.put(schedule, read=before)
            verb = "created" if before is None else "replaced; a run in flight goes on as it began"
            told = f"{schedule.name}: {verb}, {schedule.when}"
        return [told, *(["started the scheduler"] if start(self._env) else [])]

    def all(self) -> list[Seen]:
        return [self._seen(kept) for kept in self._store.list()]

    def get(self, name: str) -> Seen:
        return self._seen(self._store.get(name))

    def pause(self, name: str, *, paused: bool) -> list[str]:
        kept = self._store.get(name)
        self._store.put(kept.schedule.model_copy(update={"paused": paused}), read=kept)
        return [f"{name}: {'paused' if paused else 'goes on'}"]

    def delete(self, name: str) -> list[str]:
        self._store.get(name)
        self._store.delete(name)
        return [f"{name}: deleted"]

    def trigger(self, name: str, because: str) -> Ended:
        from penstock.cli.schedule_tick import fire
        from penstock.cli.watch import watching
        from pipelines.steps import STEPS_OF

        pipeline = self._store.get(name).schedule.pipeline
        with watching(STEPS_OF[pipeline], terminal=sys.stdout.isatty()) as show:
            tick = fire(self._env, name, because, show=show)
        return Ended(tick.outcome, tick.told, 0 if tick.outcome in ("done", "skipped") else 1)

    def start(self, name: str, because: str) -> None:
        from penstock.cli.schedule_tick import spawn

        spawn(self._env, self._store.folder, name, because)

    def known(self) -> Sequence[Kept]:
        return self._store.list()

    def _seen(self, kept: Kept) -> Seen:
        from penstock.cli.schedule_serve import running
        from pipelines.schedules.clock import next_fire

        schedule, at = kept.schedule, ""
        if not schedule.paused:
            last = datetime.fromtimestamp(kept.ticks[-1].at, UTC) if kept.ticks else None
            at = _moment(next_fire(schedule.when, datetime.now(UTC), last=last).timestamp())
            if running(self._settings) is None:
                at = "never: no scheduler runs; penstock schedule serve"
        return Seen(
            name=schedule.name,
            pipeline=schedule.pipeline,
            model=schedule.model,
            when=str(schedule.when),
            paused=schedule.paused,
            next_at=at,
            last=_tick(kept.ticks[-1]) if kept.ticks else "",
            ticks=[_tick(tick) for tick in reversed(kept.ticks)],
            body={
                "deadline_s": schedule.deadline_s,
                "parameters": schedule.parameters,
                "ticks": [tick.model_dump() for tick in kept.ticks],
            },
        )


def _tick(tick: Tick) -> str:
    took = f" after {tick.seconds:.1f} s" if tick.seconds else ""
    return f"{_moment(tick.at)} {tick.because}: {tick.outcome}{took}: {tick.told}".rstrip(": ")


def _moment(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))
