"""Looks after many rollouts in one process: a task each, what blocks in a few threads."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

from penstock.cli.rollout_view import held_by, place, words
from penstock.core.errors import ConfigurationError, LifecycleError
from penstock.core.spec import Rollout
from serving import controller as acting
from serving import lease
from serving.cluster import Cluster, Object
from serving.rollout import events
from serving.rollout.decide import Seen, Shift, Stay
from serving.rollout.evidence import Batch
from serving.rollout.record import Record
from serving.rollout.step import Step
from serving.traffic import Traffic

_SHARE_OF_TIME = 0.5
"""How much of the threads' time all looks may take; where it is not enough, they become fewer."""

_FIRST_GUESS_S = 0.01
_LONGEST_LOOK_S = 120.0
"""A look that takes longer hangs: its lease may run out, so that another can keep deadlines."""

_TROUBLE = (LifecycleError, OSError, sqlite3.Error)
_log = logging.getLogger("penstock.controller")
P = ParamSpec("P")
T = TypeVar("T")


def _ignore(*_: object) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Duty:
    """What is looked after, and as whom."""

    cluster: Cluster
    log: acting.EventLog
    world: Callable[[str, Rollout], AbstractContextManager[acting.World]]
    """Returns what a rollout sees; closed when it is left."""

    owner: str
    tell: Callable[[str], None]
    """Takes a line per decision."""

    promoted: Callable[[str, Record], None] = _ignore
    """Takes name and record of a version that was promoted, before the one it replaces is removed;
    may be called again."""

    left: Callable[[str], None] = _ignore
    """Takes the name of a rollout that is no longer looked after: it is over, or another's."""

    traffic: Traffic = acting.LOCAL
    """How traffic is split there."""

    hint: str = "penstock local up"
    """What a person does when nothing routes."""

    timed: Callable[[float, float], None] = _ignore
    """Takes, for every look, how late it began and how long it took, in seconds."""


class _Current(threading.local):
    """The world of the rollout that this thread looks at: one controller serves them all."""

    world: acting.World

    def seen(self, record: Record) -> Seen:
        return self.world.seen(record)

    def evidence(self, record: Record, seen: Seen) -> Batch:
        return self.world.evidence(record, seen)


class Keeper:
    """Looks after every rollout whose lease it gets.

    Args:
        duty: What is looked after.
        threads: Looks at the same time.
        look_s: Between two looks at a rollout; longer when there are too many for that.
        scan_s: Between two searches for rollouts.
        renew_s: After so long, the lease is renewed beside a look that goes on or has to wait.
    """

    def __init__(
        self,
        duty: Duty,
        *,
        threads: int,
        look_s: float = 0.25,
        scan_s: float = lease.RENEW_S,
        renew_s: float = lease.RENEW_S,
    ) -> None:
        self._duty, self._threads = duty, threads
        self._look_s, self._scan_s, self._renew_s = look_s, scan_s, renew_s
        self._due: dict[str, float] = {}
        """Name → since when its look goes on, or waits for a thread."""

        self._tending: set[str] = set()
        self._settled: dict[str, str] = {}
        """Name → version of its route in which there was nothing to do."""

        self._left: set[str] = set()
        """Names of living owners, when this ends before they do."""

        self._owed: dict[str, Record] = {}
        """Name → a promotion that has yet to be told."""

        self._told: dict[str, str] = {}
        self._current = _Current()
        self._controller = acting.Controller(
            duty.cluster, duty.log, self._current, duty.owner, traffic=duty.traffic
        )
        self._policies: dict[str, Rollout] = {}
        self._mean_s = _FIRST_GUESS_S
        self._stop = asyncio.Event()
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="look")

    def stop(self) -> None:
        """End every task after the look it is at; leases are given up."""
        self._stop.set()

    async def run(self, *, once: bool) -> None:
        """Look after rollouts until stopped; `once`, until none is left that needs it."""
        with self._pool:
            async with asyncio.TaskGroup() as group:
                beats = group.create_task(self._beat())
                while not self._stop.is_set():
                    self._take_up(group, await self._search(), once=once)
                    if once and not self._tending:
                        break
                    await self._pause(min(self._scan_s, 1.0) if once else self._scan_s)
                while self._tending:
                    await asyncio.sleep(0.02)
                beats.cancel()

    def _take_up(self, group: asyncio.TaskGroup, found: list[Object], *, once: bool) -> None:
        crowded = len(found) > self._threads  # many at once would all be due at the same moment
        for index, obj in enumerate(found):
            delay_s = lease.RENEW_S * index / len(found) if crowded else 0.0
            self._tending.add(obj["metadata"]["name"])
            group.create_task(self._tend(obj, delay_s, once=once))

    async def _beat(self) -> None:
        """Keep the leases of looks that take long; looking renews the others."""
        while True:
            await asyncio.sleep(self._renew_s / 5)
            now = time.monotonic()
            late = [
                n for n, due in self._due.items() if self._renew_s < now - due < _LONGEST_LOOK_S
            ]
            for name in late:
                with suppress(*_TROUBLE):  # the next beat, or the look itself, tells
                    await asyncio.to_thread(
                        lease.acquire, self._duty.cluster, name, self._duty.owner, time.time()
                    )

    async def _search(self) -> list[Object]:
        try:
            return await self._blocking(self._unsettled)
        except _TROUBLE as problem:
            self._trouble("search", problem)
            return []

    def _unsettled(self) -> list[Object]:
        """Return the routes with something to do."""
        found = []
        for obj in self._duty.cluster.list(self._duty.traffic.carrier):
            name, version = obj["metadata"]["name"], obj["metadata"]["resourceVersion"]
            if name in self._tending | self._left or self._settled.get(name) == version:
                continue
            if self._needs(obj):
                found.append(obj)
            else:
                self._settled[name] = version
        return found

    def _needs(self, obj: Object) -> bool:
        """Return whether a route has a rollout with something to do."""
        try:
            record = acting.record_of(obj)
        except ConfigurationError as problem:
            self._trouble(obj["metadata"]["name"], problem)
            return False
        if record is None or not self._duty.traffic.carries(obj):
            return False
        return not record.over or self._loser_is_there(obj, record)

    def _still(self, name: str) -> Object | None:
        """Return the route as it is now, if there is still something to do."""
        obj = self._duty.cluster.get(self._duty.traffic.carrier, name)
        return obj if obj is not None and self._needs(obj) else None

    async def _tend(self, obj: Object, delay_s: float, *, once: bool) -> None:
        name = obj["metadata"]["name"]
        try:
            await self._pause(delay_s)
            if not await self._until_free(name, once=once):
                return
            now = await self._blocking(self._still, name)
            if now is None:
                return  # whoever had it has ended it
            obj = now
            record = acting.record_of(obj)
            if record is not None and record.phase == "promoted":
                self._owed[name] = record  # whoever promoted it died before what it replaced went
            with await self._blocking(self._duty.world, name, self._policy(obj)) as world:
                await self._drive(name, world)
            await self._blocking(self._duty.left, name)
            await self._blocking(lease.release, self._duty.cluster, name, self._duty.owner)
        except ConfigurationError as problem:  # not to be retried before somebody mends it
            self._trouble(name, problem)
            self._settled[name] = obj["metadata"]["resourceVersion"]
        except _TROUBLE as problem:
            self._trouble(name, problem)
            await self._pause(lease.RENEW_S)
        except Exception:  # noqa: BLE001 - a bug met by one rollout is told, and spares the others
            _log.exception("%s: tried again in %g s", name, lease.RENEW_S)
            await self._pause(lease.RENEW_S)
        finally:
            self._tending.discard(name)

    async def _until_free(self, name: str, *, once: bool) -> bool:
        """Wait while another owner lives; return whether it is our turn."""
        first = ""
        while not self._stop.is_set():
            holder, renewed = await self._blocking(held_by, self._duty.cluster, name, time.time())
            if holder in ("", self._duty.owner):
                return True
            first = first or renewed
            if once and renewed != first:
                self._left.add(name)
                self._duty.tell(f"{name}: left to {holder}, which looks after it")
                return False
            await self._pause(min(self._scan_s, 1.0))
        return False

    async def _drive(self, name: str, world: acting.World) -> None:
        """Look until the rollout is over and what lost is gone, or another has it."""
        known = ""
        while not self._stop.is_set():
            wait_s = self._interval()
            try:
                await self._settle(name)
                made = await self._look(name, world)
            except ConfigurationError:
                raise
            except _TROUBLE as problem:
                self._trouble(name, problem)
                made, wait_s = None, self._scan_s
            if made is None:
                if await self._blocking(self._is_elsewhere, name):
                    return
            else:
                known = self._tell(name, made, known)
                if made.record.over and isinstance(made.action, Stay):
                    if not await self._blocking(self._loser_stays, name, made.record):
                        return
                    wait_s = lease.RENEW_S
            await self._pause(wait_s)

    async def _settle(self, name: str) -> None:
        """Tell of a promotion, before the next look removes what it replaces."""
        if name in self._owed:
            await self._blocking(self._duty.promoted, name, self._owed[name])
            del self._owed[name]

    async def _look(self, name: str, world: acting.World) -> Step | None:
        due = time.perf_counter()

        def look() -> tuple[Step | None, float, float]:
            began = time.perf_counter()
            self._current.world = world
            made = self._controller.look(name)
            return made, began - due, time.perf_counter() - began

        self._due[name] = time.monotonic()
        try:
            made, late_s, took_s = await self._blocking(look)
        finally:
            del self._due[name]
        self._mean_s += 0.02 * (took_s - self._mean_s)
        self._duty.timed(late_s, took_s)
        return made

    def _tell(self, name: str, made: Step, known: str) -> str:
        record = made.record
        if not known:
            versions = f"{record.candidate} against {record.stable}"
            self._duty.tell(f"{name}: looked after from {place(record)} on, {versions}")
        self._told.pop(name, None)
        if isinstance(made.action, Shift) and record.phase == "promoted":
            self._owed[name] = record
        if not isinstance(made.action, Stay):
            self._duty.tell(f"{name}: {words(events.told(made.action))}")
        return record.owner

    def _policy(self, obj: Object) -> Rollout:
        """Return a route's policy; most have the same."""
        text = obj["metadata"]["annotations"][acting.POLICY]
        if text not in self._policies:
            self._policies[text] = acting.policy_of(obj)
        return self._policies[text]

    def _is_elsewhere(self, name: str) -> bool:
        """Return whether another owns the rollout, or it is gone."""
        obj = self._duty.cluster.get(self._duty.traffic.carrier, name)
        if obj is None or acting.record_of(obj) is None:
            return True
        return held_by(self._duty.cluster, name, time.time())[0] not in ("", self._duty.owner)

    def _loser_is_there(self, obj: Object, record: Record) -> bool:
        cluster, traffic = self._duty.cluster, self._duty.traffic
        return acting.leftover(cluster, traffic, obj, record) is not None

    def _loser_stays(self, name: str, record: Record) -> bool:
        obj = self._duty.cluster.get(self._duty.traffic.carrier, name)
        there = obj is not None and self._loser_is_there(obj, record)
        if there:
            waits = "what lost is removed once the gateway tells what it routes"
            self._say(f"{name}/loser", f"{name}: {waits}; next: {self._duty.hint}")
        return there

    def _trouble(self, name: str, problem: Exception) -> None:
        hint = getattr(problem, "hint", "")
        self._say(name, f"{name}: {problem}" + (f"; next: {hint}" if hint else ""))

    def _say(self, key: str, text: str) -> None:
        """Tell something, once for as long as it stays the same."""
        if self._told.get(key) != text:
            self._told[key] = text
            self._duty.tell(text)

    def _interval(self) -> float:
        """Return the time between two looks at a rollout: the more there are, the longer."""
        busy_s = len(self._tending) * self._mean_s / self._threads
        return max(self._look_s, min(busy_s / _SHARE_OF_TIME, lease.RENEW_S))

    async def _pause(self, seconds: float) -> None:
        """Wait, but not when stopped."""
        try:
            await asyncio.wait_for(self._stop.wait(), seconds)
        except TimeoutError:
            return

    async def _blocking(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, lambda: call(*args, **kwargs))
