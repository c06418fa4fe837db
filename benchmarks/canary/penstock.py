"""The shipped engine and controller as a rule: a fake clock, a fake cluster, synthetic traffic.

Everything that decides is what users run: `Controller.look` reads the object, judges, and writes it
back. Shadow is replay, at the rate of the default policy, as in the product.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

import numpy as np

from benchmarks.canary.looks import look
from benchmarks.canary.outcomes import PROMOTE, ROLL_BACK, Ledger, Outcomes
from benchmarks.canary.scenarios import Scenario
from benchmarks.canary.world import TICK_S, World
from penstock.core.spec import Rollout
from serving.cluster import ANY, Kind, Object, labelled
from serving.controller import Controller, begin, weights
from serving.manifests import route
from serving.rollout.decide import Seen
from serving.rollout.evidence import Batch
from serving.rollout.judge import Judge
from serving.rollout.record import Record, digest_of
from serving.rollout.step import LIVE

NAME, STABLE, CANDIDATE = "m", "m-v1", "m-v2"
LONGEST_S = 7200.0
"""Without a decision by then, a replication counts as undecided."""


class OneObject:
    """As much of a `Cluster` as a controller needs; no copies, for nobody changes what he reads."""

    def __init__(self) -> None:
        self._objects: dict[tuple[Kind, str], Object] = {}

    def get(self, kind: Kind, name: str) -> Object | None:
        """Return the object."""
        return self._objects.get((kind, name))

    def list(self, kind: Kind, *, labels: Mapping[str, str] = ANY) -> list[Object]:
        """Return all objects of a kind with these labels."""
        objects = self._objects.items()
        return [obj for (of, _), obj in objects if of == kind and labelled(obj, labels)]

    def create(self, obj: Object, *, dry_run: bool = False) -> Object:
        """Store an object."""
        self._objects[obj["kind"], obj["metadata"]["name"]] = obj
        return obj

    replace = replace_status = create

    def delete(
        self, kind: Kind, name: str, *, read: Object | None = None, foreground: bool = False
    ) -> None:
        """Remove an object."""
        self._objects.pop((kind, name), None)

    def watch(self, kind: Kind, *, timeout_s: float) -> Iterator[Object]:
        """Yield what is there."""
        yield from self.list(kind)


class Silent:
    """A log that nobody will read."""

    def append(self, name: str, line: str) -> None:
        """Forget the line."""

    def lines(self, name: str) -> list[str]:
        """Return nothing."""
        return []


class Replication:
    """One rollout: its cluster, its controller, and the world as that sees it."""

    def __init__(self, policy: Rollout, make: Callable[[Rollout], Judge]) -> None:
        cluster, log = OneObject(), Silent()
        cluster.create(route(NAME, {STABLE: 100}))
        first = Record(
            CANDIDATE, STABLE, digest_of(policy.model_dump_json()), make(policy).start(), owner=NAME
        )
        self.record = begin(cluster, log, NAME, first, policy)
        self.now, self.batch = 0.0, Batch()
        self._controller = Controller(cluster, log, self, NAME, judge=make)

    def look(self, batch: Batch, now: float) -> Record:
        """Give the controller a tick's evidence; return the record after it."""
        self.now, self.batch = now, batch
        made = self._controller.look(NAME)
        assert made is not None  # noqa: S101 - nobody else looks
        self.record = made.record
        return self.record

    def seen(self, record: Record) -> Seen:
        """Return a candidate that is ready and traffic that follows at once."""
        return Seen(self.now, ready=True, warm=True, routed=weights(record))

    def evidence(self, record: Record, seen: Seen) -> Batch:
        """Return the tick's evidence."""
        if record.phase == "ramp" and LIVE not in (record.cursors or {}):
            return Batch(cursors={LIVE: "0"})
        return replace(self.batch, cursors={LIVE: str(seen.now)}) if self.batch.size else Batch()


def penstock(scenario: Scenario, reps: int, rng: np.random.Generator) -> Outcomes:
    """Return what the default policy does."""
    return run(scenario, reps, rng, Judge)


def run(
    scenario: Scenario,
    reps: int,
    rng: np.random.Generator,
    make: Callable[[Rollout], Judge],
    policy: Rollout | None = None,
) -> Outcomes:
    """Return what a policy does, the default one unless given.

    Args:
        scenario: What is true.
        reps: Replications.
        rng: Where all randomness comes from.
        make: Makes the tests of a policy.
        policy: How to judge.
    """
    policy = policy or Rollout()
    world, ledger = World(scenario, reps, rng), Ledger(reps)
    alive = [(n, Replication(policy, make)) for n in range(reps)]
    out, now = ledger.outcomes, 0.0
    while alive and now < LONGEST_S:
        now += TICK_S
        world.advance()
        phases = [replication.record.phase for _, replication in alive]
        weight = np.array([replication.record.weight / 100 for _, replication in alive])
        shadow = np.array([policy.replay_rps if phase == "shadow" else 0.0 for phase in phases])
        seen = look(world, weight=weight, mirror=np.zeros(len(alive)), replay_rps=shadow)
        numbers = [number for number, _ in alive]
        out.exposed[numbers] += seen.exposed
        out.replayed[numbers] += seen.replayed
        undecided = np.ones(len(alive), dtype=np.bool_)
        for at, (number, replication) in enumerate(alive):
            phase = replication.look(seen.batches[at], now).phase
            if phase in ("promoted", "rolling_back"):
                out.decision[number] = PROMOTE if phase == "promoted" else ROLL_BACK
                out.seconds[number] = now
                undecided[at] = False
        if not undecided.all():
            alive = [each for each, keep in zip(alive, undecided, strict=True) if keep]
            world.keep(undecided)
    return out
