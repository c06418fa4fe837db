"""Decides what happens to the replicas; no I/O, time comes as an argument."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

DRAIN_GRACE_S = 35.0
"""A replica that was told to stop finishes its requests within this, or is killed."""

_FIRST_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 30.0


@dataclass(frozen=True, slots=True)
class Wanted:
    """A service, and how many replicas it should have."""

    service: str
    replicas: int


@dataclass(frozen=True, slots=True)
class Replica:
    """A process as it was found."""

    identity: str
    service: str
    alive: bool
    draining_since: float | None = None


@dataclass(frozen=True, slots=True)
class Crashes:
    """How often a service's replicas died in a row."""

    count: int = 0
    last_at: float = 0.0

    @property
    def pause_s(self) -> float:
        """How long the next start waits: 1, 2, 4 … 30 s."""
        if self.count == 0:
            return 0.0
        # 2**5 is beyond the cap; a larger exponent only risks overflow
        return min(_FIRST_PAUSE_S * 2.0 ** min(self.count - 1, 5), _LONGEST_PAUSE_S)


@dataclass(frozen=True, slots=True)
class Start:
    """Start one replica."""

    service: str


@dataclass(frozen=True, slots=True)
class Drain:
    """Tell a replica to finish its requests and end."""

    identity: str


@dataclass(frozen=True, slots=True)
class Kill:
    """End a replica that did not end when told."""

    identity: str


@dataclass(frozen=True, slots=True)
class Forget:
    """Remove the record of a process that ended."""

    identity: str
    crashed: bool


Action = Start | Drain | Kill | Forget


def plan(
    wanted: Sequence[Wanted],
    found: Sequence[Replica],
    crashes: Mapping[str, Crashes],
    now: float,
) -> list[Action]:
    """Return what brings the processes nearer to what is wanted; nothing when they agree."""
    running: dict[str, list[Replica]] = {}
    for replica in found:
        if replica.alive and replica.draining_since is None:
            running.setdefault(replica.service, []).append(replica)
    target = {each.service: each.replicas for each in wanted}
    actions = [*_ends(found, now)]
    for service, replicas in running.items():
        surplus = len(replicas) - target.get(service, 0)
        if surplus > 0:  # the youngest go first: they have the fewest requests
            actions += [Drain(r.identity) for r in replicas[-surplus:]]
    for service, count in target.items():
        crash = crashes.get(service, Crashes())
        if now - crash.last_at >= crash.pause_s:
            actions += [Start(service)] * max(0, count - len(running.get(service, [])))
    return actions


def _ends(found: Sequence[Replica], now: float) -> Iterator[Action]:
    """What follows for replicas that ended, or should have."""
    for replica in found:
        if not replica.alive:
            yield Forget(replica.identity, crashed=replica.draining_since is None)
        elif replica.draining_since is not None and now - replica.draining_since > DRAIN_GRACE_S:
            yield Kill(replica.identity)
