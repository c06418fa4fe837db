"""A cluster whose objects are written into a folder, for Git, instead of to it.

What is there, what really routes and what users noticed still comes from the cluster: somebody
else (Argo CD, Flux, a person with kubectl) makes it what the folder states.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

from penstock.core.checks import refuse
from penstock.core.manifest import Manifest
from penstock.core.spec import ModelSpec, Rollout
from serving.cluster import Cluster
from serving.controller import FileLog, record_of
from serving.doors import Door
from serving.gitops.folder import FolderCluster
from serving.gitops.steps import Told, take_up
from serving.gpus.surge import Decision
from serving.manifests import ready
from serving.rollout.decide import Seen
from serving.rollout.record import Record
from serving.sources.live import Counters
from serving.sources.replay import Load, Prompt
from serving.sources.world import ObservedWorld, Place
from serving.targets import checks, probe
from serving.targets.kserve import ClusterDoors, ClusterTarget
from serving.targets.target import MAX_NEW_TOKENS, prompts_from_json, prompts_to_json
from serving.traffic import Traffic

_NOT_THERE = "it is in the folder, and not on the cluster yet: commit it, and have it applied"


@dataclass(frozen=True)
class RenderedTarget:
    """A `Target`.

    Args:
        real: The cluster.
        folder: What is written.
    """

    real: ClusterTarget
    folder: Path
    began: bool = True

    @property
    def options(self) -> str:
        """What names it to other commands."""
        return f"{self.real.options} --render {self.folder}"

    @property
    def hint(self) -> str:
        """The command that shows how far folder and cluster are apart."""
        return f"penstock drift {self.folder}{self.real.options}"

    @property
    def traffic(self) -> Traffic:
        """The cluster's mechanism."""
        return self.real.traffic

    @property
    def look_s(self) -> float:
        """The cluster's."""
        return self.real.look_s

    @cached_property
    def cluster(self) -> FolderCluster:
        """The folder."""
        return FolderCluster(self.folder, self.real.where.namespace)

    @cached_property
    def log(self) -> FileLog:
        """A file beside the record: committed with it."""
        return FileLog(self.folder / "rollouts")

    def require(self, model: ModelSpec) -> None:
        """Raise what keeps a model from being served there; who applies needs the rights."""
        where = self.real.where
        refuse(checks.checks(probe.look(self.real.cluster, where), where, model))

    def surge(self, model: ModelSpec, service: str, stable: str) -> Decision:
        """Return what the cluster has room for."""
        return self.real.surge(model, service, stable)

    def storage_for(self, manifest: Manifest, *, as_it_came: bool) -> str:
        """Return where pods find a checkpoint."""
        return self.real.storage_for(manifest, as_it_came=as_it_came)

    def door(self, name: str) -> Door:
        """Return users' way to a model."""
        return self.real.door(name)

    def observed(self, name: str) -> Mapping[str, int]:
        """Return the weights in force on the cluster."""
        return self.real.observed(name)

    def why(self, service: str) -> str:
        """Return what keeps a version from serving."""
        return self.real.why(service)

    def counters(self, name: str, candidate: str, stable: str) -> Counters:
        """Return the counters of the versions' pods."""
        return self.real.counters(name, candidate, stable)

    def take_up(self, name: str) -> None:
        """Write down what serves a name already; see `serving.gitops.steps.take_up`."""
        take_up(self.cluster, self.real.cluster, self.traffic, name)

    def told(self, name: str) -> Told:
        """Return what the cluster says of a name."""
        versions = self.real.cluster.list(self.traffic.served)
        states = {obj["metadata"]["name"]: ready(obj)[0] for obj in versions}
        return Told(states, self.observed(name))

    def world(self, name: str, policy: Rollout) -> ObservedWorld:
        """Return what a rollout sees: evidence from the cluster, existence from the folder."""
        carrier = self.cluster.get(self.traffic.carrier, name)
        record = record_of(carrier) if carrier is not None else None
        prompts, max_new_tokens = list[Prompt](), MAX_NEW_TOKENS
        kept = self._prompts(record.candidate) if record is not None else None
        if kept is not None and kept.exists():
            prompts, max_new_tokens = prompts_from_json(kept.read_text())
        place = Place(
            self.real.cluster,
            self.traffic,
            name,
            ClusterDoors(self.door(name), self.hint),
            partial(self.observed, name),
            partial(self.counters, name),
            self.why,
            self.real.replaced,
        )
        load = Load(max_new_tokens=max_new_tokens)
        return _World(self, place, policy, prompts, load)

    def keep_prompts(self, candidate: str, prompts: Iterable[Prompt], max_new_tokens: int) -> None:
        """Keep them beside the record: the next step may be another machine's."""
        path = self._prompts(candidate)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(prompts_to_json(prompts, max_new_tokens))

    def forget_prompts(self, candidate: str) -> None:
        """Remove them."""
        self._prompts(candidate).unlink(missing_ok=True)

    def _prompts(self, candidate: str) -> Path:
        return self.folder / "rollouts" / f"{candidate}.prompts.json"


class _World(ObservedWorld):
    """What a rollout sees, where a version may be written and not applied yet."""

    def __init__(
        self,
        target: RenderedTarget,
        place: Place,
        policy: Rollout,
        prompts: list[Prompt],
        load: Load,
    ) -> None:
        super().__init__(place, policy, prompts, load, time.time)
        self._target = target

    def seen(self, record: Record) -> Seen:
        """Return what the cluster shows; a version exists while the folder has it."""
        target = self._target
        return as_written(super().seen(record), record, target.cluster, target.traffic)


def as_written(seen: Seen, record: Record, folder: Cluster, traffic: Traffic) -> Seen:
    """Return what a cluster shows, with versions that exist where the folder has them.

    One that was written just now is not deleted, and one that was removed need not be removed
    again, though the cluster is not there yet.
    """
    there = {
        service: folder.get(traffic.served, service) is not None
        for service in (record.candidate, record.stable)
    }
    waiting = there[record.candidate] and not seen.candidate_exists
    return replace(
        seen,
        why=_NOT_THERE if waiting else seen.why,
        candidate_exists=there[record.candidate],
        stable_exists=there[record.stable],
    )
