"""Whether a candidate can run beside the version that is served; if not, what may be done instead.

```
free devices for all of its replicas → Beside
surge: borrow, and the stable version may lend enough for one of its replicas → Borrow
surge: swap, and the devices of the stable version would do → Swap
otherwise → Refuse, with the smallest change that would work
```
"""

from __future__ import annotations

from dataclasses import dataclass

from penstock.core.spec import Rollout
from serving.gpus.ask import Ask
from serving.gpus.inventory import Inventory, given_back, room
from serving.rollout.loan import Loan


@dataclass(frozen=True, slots=True)
class Beside:
    """Nothing of what is served has to change."""

    told: str


@dataclass(frozen=True, slots=True)
class Borrow:
    """The stable version lends replicas while the rollout goes on."""

    loan: Loan
    told: str


@dataclass(frozen=True, slots=True)
class Swap:
    """The stable version is stopped first; users are told to expect a gap."""

    loan: Loan
    gap_s: float
    """At most, from when it is stopped until the candidate serves or is given up."""

    told: str


@dataclass(frozen=True, slots=True)
class Refuse:
    """Nothing may be done; nothing was changed."""

    reason: str
    change: str
    """The smallest change that would work, then others."""


Decision = Beside | Borrow | Swap | Refuse


@dataclass(frozen=True, slots=True)
class Stable:
    """The version that is served."""

    service: str
    replicas: int
    held: tuple[tuple[str, int], ...]
    """For each of its pods: the node, and how many devices it has of those that are wanted."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """The version that is to come."""

    service: str
    replicas: int
    wanted: Ask
    """Of one replica."""


@dataclass(frozen=True, slots=True)
class _Space:
    """How many of the candidate's replicas would find devices."""

    free: int
    """As things are."""

    each: int
    """More, at least, for every replica that the stable version gives up."""

    emptied: int
    """If it gave up all of them."""


def decide(
    inventory: Inventory,
    stable: Stable | None,
    candidate: Candidate,
    policy: Rollout,
) -> Decision:
    """Return what is done about devices before anything changes.

    Args:
        inventory: What is free.
        stable: What is served, if its replicas may be moved; None for the first version of a name.
        candidate: What comes; its pods ask for devices.
        policy: `surge`, `keep` and `ready_timeout_s` of the spec.
    """
    wanted, resource = candidate.replicas, candidate.wanted.resource
    free = room(inventory, candidate.wanted)
    if free >= wanted:
        return Beside(f"{_devices(candidate, wanted)} are free")
    asked = candidate.wanted
    what = "pod" if asked.nodes == 1 else "replica"
    each = (
        f"pods of {asked.count}"
        if asked.nodes == 1
        else f"replicas of {asked.nodes} pods of {asked.count}"
    )
    short = (
        f"{candidate.service} needs {_devices(candidate, wanted)}, in"
        f" {each}, and {free or 'no'} such {what}{'' if free == 1 else 's'} would"
        f" find {resource} beside what runs ({_told(inventory, candidate.wanted)})"
    )
    if stable is None:
        return Refuse(short, _changes(candidate, free))
    emptied = room(given_back(inventory, resource, stable.held), candidate.wanted)
    space = _Space(free, _each(inventory, stable, candidate), emptied)
    lent, swapped = _borrow(stable, candidate, space, policy), _swap(stable, candidate, space)
    if policy.surge == "borrow" and lent is not None:
        return Borrow(lent, _lends(lent))
    if policy.surge == "swap" and swapped is not None:
        return Swap(swapped, policy.ready_within_s, _stops(swapped, policy.ready_within_s))
    others = [
        f"rollout.surge: borrow ({_lends(lent)})" if lent is not None else "",
        f"rollout.surge: swap ({_stops(swapped, policy.ready_within_s)})" if swapped else "",
    ]
    return Refuse(short, _changes(candidate, free, *filter(None, others)))


def _borrow(stable: Stable, candidate: Candidate, space: _Space, policy: Rollout) -> Loan | None:
    """Return the smallest loan that lets most of the candidate start.

    None where none of it can start, or where it could never have all of its replicas.
    """
    most = stable.replicas - min(policy.keep or max(stable.replicas - 1, 1), stable.replicas)
    starts = [min(candidate.replicas, space.free + taken * space.each) for taken in range(most + 1)]
    best = max(starts)
    if not best or (best < candidate.replicas and space.emptied < candidate.replicas):
        return None
    return _loan(stable, candidate, stable.replicas - starts.index(best), best)


def _swap(stable: Stable, candidate: Candidate, space: _Space) -> Loan | None:
    if space.emptied < candidate.replicas:
        return None
    return _loan(stable, candidate, 0, candidate.replicas)


def _loan(stable: Stable, candidate: Candidate, keeps: int, starts: int) -> Loan:
    return Loan(
        stable.service, stable.replicas, keeps, candidate.service, candidate.replicas, starts
    )


def _each(inventory: Inventory, stable: Stable, candidate: Candidate) -> int:
    """Return the candidate's replicas that fit where any one of the stable version's was.

    Which of them goes is not ours to say, so the least of them counts. Of replicas of several pods
    nothing is promised.
    """
    if candidate.wanted.nodes > 1:
        return 0
    wanted, nodes = candidate.wanted, {node.name: node for node in inventory}
    found = [
        count // wanted.count if node in nodes and nodes[node].admits(wanted) else 0
        for node, count in stable.held
    ]
    return min(found, default=0)


def _changes(candidate: Candidate, free: int, *others: str) -> str:
    more = _devices(candidate, candidate.replicas - free)
    fewer = [f"replicas: {free}"] if free else []
    nodes = [f"nodes with {more} more", "rollout.surge: unchecked, if nodes come by themselves"]
    return "\n  or ".join([*others, *fewer, *nodes])


def _devices(candidate: Candidate, replicas: int) -> str:
    wanted = candidate.wanted
    return f"{wanted.count * wanted.nodes * replicas} x {wanted.resource}"


def _told(inventory: Inventory, wanted: Ask) -> str:
    """Return what is free on the nodes where the pod may run."""
    there = [
        f"{node.name} has {max(node.free.get(wanted.resource, 0), 0)} free"
        for node in inventory
        if node.admits(wanted) and wanted.resource in node.free
    ]
    labels = ", ".join(f"{key} {'/'.join(some)}" for key, some in wanted.labels.items())
    no_node = f"no open node offers it{f', labelled {labels}' if labels else ''}"
    shown = there[:4] + ([f"{len(there) - 4} more"] if len(there) > 4 else [])
    return ", ".join(shown) or no_node


def _lends(loan: Loan) -> str:
    part = "" if loan.starts == loan.ends else f" of {loan.ends}, the rest when it is promoted"
    starts, lent = f"{loan.candidate} starts with {loan.starts}{part}", loan.owns - loan.keeps
    return f"{loan.stable} lends {lent} of {loan.owns} replicas, {starts}" if lent else starts


def _stops(loan: Loan, gap_s: float) -> str:
    return (
        f"{loan.stable} is stopped to make room for {loan.candidate}: nobody is served for up to"
        f" {gap_s:g} s, without evidence; if it does not start, until {loan.stable} has again"
    )
