"""A run that drives its rollout: outages, slow gateways, and logs that were cut end nothing."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from components.steps import rollout as verbs
from components.steps.context import Context
from penstock.core.settings import Settings
from penstock.core.spec import Rollout
from serving import controller as acting
from serving.cluster import Kind, Object
from serving.kube.errors import Unreachable
from serving.rollout.decide import Seen
from serving.rollout.record import Record, first_record
from tests.fakes.cluster import MemoryCluster
from tests.fakes.world import CANDIDATE, NAME, STABLE, StreamWorld, services

POLICY = Rollout(soak_s=2.0)


class Flaky(MemoryCluster):
    """A cluster whose API server is away for a while."""

    def __init__(self) -> None:
        super().__init__()
        self.away = 0

    def get(self, kind: Kind, name: str) -> Object | None:
        if self.away:
            self.away -= 1
            raise Unreachable("get HTTPRoute models/m: connection refused")
        return super().get(kind, name)


class Clock(StreamWorld):
    """A world whose clock goes on by a second per look; closed when it is left."""

    def __init__(self, cluster: Flaky) -> None:
        super().__init__(cluster, pairs=600, requests=4000)
        self.now, self.looks, self.deaf = time.time(), 0, 0
        """`deaf`: looks at a promotion for which the gateway does not say what it routes."""

    def seen(self, record: Record) -> Seen:
        self.now += 1.0
        self.looks += 1
        self.routes = True
        if record.phase == "promoted" and self.deaf:
            self.deaf, self.routes = self.deaf - 1, False
        return super().seen(record)

    def close(self) -> None:
        """Nothing is open."""


class Users:
    """Who is not there."""

    def look(self) -> None:
        """Nothing is counted."""


@dataclass
class Target:
    """As much of a target as driving needs."""

    folder: Path
    cluster: Flaky = field(default_factory=Flaky)
    traffic = acting.LOCAL
    look_s = 0.001
    hint = "penstock status"

    def __post_init__(self) -> None:
        services(self.cluster)
        self.log = acting.FileLog(self.folder)
        self.seen = Clock(self.cluster)
        first = first_record(CANDIDATE, STABLE, POLICY, self.seen.now)
        acting.begin(self.cluster, self.log, NAME, first, POLICY)

    def world(self, name: str, policy: Rollout) -> Clock:
        """Return the world."""
        assert (name, policy) == (NAME, POLICY)
        return self.seen


def _driven(target: Any, folder: Path, outage_s: float = 60.0) -> Record:
    context = Context(Settings(home=folder), folder, "rollout")
    users: Any = Users()
    return verbs.drive(context, target, NAME, POLICY, users, outage_s=outage_s)


@pytest.fixture
def target(tmp_path: Path) -> Target:
    return Target(tmp_path)


def test_an_api_server_that_is_away_for_a_while_ends_no_rollout(
    target: Target, tmp_path: Path
) -> None:
    target.cluster.away = 7
    record = _driven(target, tmp_path)
    assert (target.cluster.away, record.phase) == (0, "promoted")
    assert target.cluster.get("InferenceService", STABLE) is None


def test_one_that_stays_away_is_told(target: Target, tmp_path: Path) -> None:
    target.cluster.away = 1_000_000
    with pytest.raises(Unreachable, match="connection refused"):
        _driven(target, tmp_path, outage_s=0.05)


def test_what_lost_is_gone_when_a_run_ends_also_where_the_gateway_is_slow(
    target: Target, tmp_path: Path
) -> None:
    target.seen.deaf = 3
    assert _driven(target, tmp_path).phase == "promoted"
    assert target.seen.deaf == 0
    assert target.cluster.get("InferenceService", STABLE) is None


def test_a_log_that_was_cut_proves_nothing_and_ends_nothing(target: Any, tmp_path: Path) -> None:
    record = _driven(target, tmp_path)
    obj = target.cluster.get("HTTPRoute", NAME)
    settings = Settings(home=tmp_path)
    path, replayed = verbs.certified(settings, target, NAME, obj, record)
    assert Path(path).exists()
    assert replayed[-1].record.phase == "promoted"
    (log,) = tmp_path.glob("*.jsonl")
    log.write_text("\n".join(log.read_text().splitlines()[5:]))
    assert verbs.certified(settings, target, NAME, obj, record) == ("", [])
