"""A rollout that has begun, in memory, and who looks after it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from penstock.core.spec import Rollout
from serving import controller as acting
from serving.cluster import Cluster
from serving.controller import Controller, FileLog, record_of
from serving.manifests import weights_of
from serving.rollout import events
from serving.rollout.record import Record, first_record
from tests.fakes.cluster import MemoryCluster
from tests.fakes.world import CANDIDATE, NAME, STABLE, StreamWorld, services

POLICY = Rollout(soak_s=20.0)
GOOD, BAD_IN_SHADOW, BAD_LIVE = (0.0, 0.0), (0.05, 0.05), (0.0, 0.08)


class Stage:
    """A cluster with a rollout that has begun, and who looks after it."""

    def __init__(self, folder: Path, wrong: tuple[float, float], policy: Rollout = POLICY) -> None:
        self.cluster: Cluster = MemoryCluster()
        services(self.cluster)
        self.log = FileLog(folder)
        self.world = StreamWorld(self.cluster, wrong)
        self.policy = policy
        first = first_record(CANDIDATE, STABLE, policy, self.world.now)
        acting.begin(self.cluster, self.log, NAME, first, policy)
        self.controller = self.owned_by("one")

    def owned_by(self, owner: str) -> Controller:
        return Controller(self.cluster, self.log, self.world, owner)

    @property
    def record(self) -> Record:
        obj = self.cluster.get("HTTPRoute", NAME)
        assert obj is not None
        found = record_of(obj)
        assert found is not None
        return found

    @property
    def weights(self) -> dict[str, int]:
        obj = self.cluster.get("HTTPRoute", NAME)
        assert obj is not None
        return weights_of(obj)

    def run(self, looks: int = 400, *, until: Callable[[Record], bool] = lambda r: r.over) -> None:
        for _ in range(looks):
            self.controller.look(NAME)
            self.world.now += 1.0
            if until(self.record):
                return
        raise AssertionError(f"still {self.record.phase}: {self.record.reason}")

    def phases(self) -> list[str]:
        seen = [r.record.phase for r in events.verify(self.certificate())]
        return [p for i, p in enumerate(seen) if i == 0 or seen[i - 1] != p]

    def undecided(self) -> bool:
        return events.undecided(events.verify(self.certificate()))

    def certificate(self) -> str:
        return events.certificate(self.policy.model_dump_json(), self.record, self.log.lines(NAME))
