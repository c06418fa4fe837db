"""This machine: objects in SQLite, the supervisor's processes, the gateway's counters."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

from penstock.core.errors import NotReady
from penstock.core.manifest import Manifest
from penstock.core.settings import Settings
from penstock.core.spec import ModelSpec, Rollout
from serving.controller import FileLog, record_of
from serving.doors import Door, GatewayDoors
from serving.gpus.surge import Beside, Decision
from serving.local import lifecycle
from serving.local.objects import SqliteCluster
from serving.local.requestlog import RequestLog
from serving.sources.live import LiveCounters
from serving.sources.replay import Load, Prompt, prompts_of
from serving.sources.world import ObservedWorld, Place
from serving.targets.target import MAX_NEW_TOKENS, prompts_from_json, prompts_to_json
from serving.traffic import LocalTraffic

_LOGGED_PROMPTS = 2000


@dataclass(frozen=True)
class LocalTarget:
    """A `Target`.

    Args:
        settings: Where the local cluster is.
    """

    settings: Settings
    look_s: float = 0.25
    options: str = ""
    hint: str = "penstock local status"

    @property
    def began(self) -> bool:
        """Whether the objects' database was made."""
        return (self.settings.cluster / "cluster.db").exists()

    @cached_property
    def cluster(self) -> SqliteCluster:
        """Where the objects are."""
        return lifecycle.cluster(self.settings)

    @property
    def traffic(self) -> LocalTraffic:
        """The gateway reads the HTTPRoute."""
        return LocalTraffic()

    @property
    def log(self) -> FileLog:
        """A file per name."""
        return FileLog(self.settings.cluster / "rollouts")

    def storage_for(self, manifest: Manifest, *, as_it_came: bool) -> str:  # noqa: ARG002
        """Return nothing: replicas read the store."""
        return ""

    def require(self, model: ModelSpec) -> None:  # noqa: ARG002 - any model
        """Raise `NotReady` unless supervisor and gateway run."""
        if not lifecycle.status(self.settings).up:
            raise NotReady(
                "local cluster",
                reason="its supervisor or gateway does not run",
                waited_s=0,
                hint="penstock local up",
            )

    def surge(self, model: ModelSpec, service: str, stable: str) -> Decision:  # noqa: ARG002
        """Return that nothing keeps it: the CPU engine has no devices."""
        return Beside("no devices are wanted")

    def door(self, name: str) -> Door:  # noqa: ARG002 - one gateway for all
        """Return the gateway's URL."""
        return Door(lifecycle.url(self.settings), {})

    def observed(self, name: str) -> Mapping[str, int]:
        """Return the weights the gateway has in force."""
        return lifecycle.observed(self.settings, name)

    def why(self, service: str) -> str:  # noqa: ARG002 - the object's conditions say it all
        """Return nothing: the supervisor writes it into the object."""
        return ""

    def counters(self, name: str, candidate: str, stable: str) -> LiveCounters:
        """Return the gateway's counters."""
        url = lifecycle.url(self.settings)
        return LiveCounters(url, name, candidate=candidate, stable=stable)

    def world(self, name: str, policy: Rollout) -> ObservedWorld:
        """Return what a rollout sees; it replays what was kept, then what the gateway logged."""
        obj = self.cluster.get("HTTPRoute", name)
        record = record_of(obj) if obj is not None else None
        prompts, max_new_tokens = list[Prompt](), MAX_NEW_TOKENS
        if record is not None and self._kept(record.candidate).exists():
            prompts, max_new_tokens = prompts_from_json(self._kept(record.candidate).read_text())
        requests = RequestLog(self.settings.cluster / "requests.db")
        logged = requests.after(0, name, _LOGGED_PROMPTS)[0]
        place = Place(
            self.cluster,
            self.traffic,
            name,
            GatewayDoors(lifecycle.url(self.settings)),
            partial(self.observed, name),
            partial(self.counters, name),
        )
        load = Load(max_new_tokens=max_new_tokens)
        return ObservedWorld(place, policy, [*prompts, *prompts_of(logged)], load, time.time)

    def keep_prompts(self, candidate: str, prompts: Iterable[Prompt], max_new_tokens: int) -> None:
        """Write a file beside the event log."""
        path = self._kept(candidate)
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".new")
        unfinished.write_text(prompts_to_json(prompts, max_new_tokens))
        unfinished.replace(path)

    def forget_prompts(self, candidate: str) -> None:
        """Remove the file, if there is one."""
        self._kept(candidate).unlink(missing_ok=True)

    def _kept(self, candidate: str) -> Path:
        return self.settings.cluster / "rollouts" / f"{candidate}.prompts.json"
