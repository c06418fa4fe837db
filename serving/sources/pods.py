"""Evidence from users' requests on a cluster: the counters that the engines themselves keep.

Every pod of both versions is read, or nothing is: half a reading would look like half the traffic.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from prometheus_client.parser import text_string_to_metric_families

from penstock.core.errors import ServingError
from serving.rollout.evidence import NO_REQUESTS, Arm
from serving.sources.counters import HALVES, Sample, Snapshot, delta, snapshot_of
from serving.sources.engines import canonical
from serving.sources.live import Reading


class Pod(NamedTuple):
    """One process that serves a version."""

    uid: str
    name: str
    service: str
    address: str
    """Where its metrics are: host and port."""

    ready: bool
    path: str = "/metrics"


class Scraper(NamedTuple):
    """How pods are found and read."""

    pods: Callable[[str], list[Pod]]
    """Returns the pods of a version, ready or not."""

    samples: Callable[[Pod], list[Sample]]
    """Returns what a pod counted; `NotReady` where it does not answer."""


@dataclass(frozen=True, slots=True)
class _Cursor:
    at: float
    """When it was read, in seconds since the epoch."""

    pods: Mapping[str, Snapshot]
    """By pod's uid."""

    lost: frozenset[str] = frozenset()
    """Versions that had no pod to send users to, and have answered nobody since: a gateway follows
    a moment after a pod is ready."""

    def to_json(self) -> str:
        pods = {uid: snapshot.to_json() for uid, snapshot in sorted(self.pods.items())}
        body = {"at": self.at, "pods": pods, **({"lost": sorted(self.lost)} if self.lost else {})}
        return json.dumps(body, separators=(",", ":"))

    @staticmethod
    def from_json(text: str) -> _Cursor:
        try:
            body = json.loads(text)
            pods = {uid: Snapshot.from_json(each) for uid, each in body["pods"].items()}
            return _Cursor(float(body["at"]), pods, frozenset(body.get("lost", ())))
        except (ValueError, KeyError, TypeError, AttributeError) as problem:
            raise ServingError(
                f"no cursor of pods' counters: {text[:80]!r}",
                hint="begin again without one; what was counted since is not evidence then",
            ) from problem


class PodCounters:
    """The `Counters` of the pods of two versions.

    Args:
        scraper: How they are read.
        name: The model's.
        candidate: Service that is judged.
        stable: Service that it is compared with.
        clock: Seconds since the epoch.
    """

    def __init__(
        self,
        scraper: Scraper,
        name: str,
        *,
        candidate: str,
        stable: str,
        clock: Callable[[], float],
    ) -> None:
        self._scraper, self._name, self._clock = scraper, name, clock
        self._candidate, self._stable = candidate, stable

    def read(self, cursor: str | None) -> Reading:
        """Return what candidate and stable did since the cursor, and the cursor after it.

        A pod that restarted counts from zero; one that was not in the last reading counts only if
        it began after it. What a pod counted after its last reading is lost when it goes.

        Raises:
            NotReady: A pod that is ready does not tell: no evidence, and the cursor stays.
        """
        before = None if cursor is None else _Cursor.from_json(cursor)
        now = self._clock()
        listed = {
            service: self._scraper.pods(service) for service in (self._candidate, self._stable)
        }
        found: dict[str, dict[str, Snapshot]] = {}
        for service, pods in listed.items():
            found[service] = {pod.uid: self._snapshot(pod) for pod in pods if pod.ready}
        silent = {service for service, each in found.items() if not each}
        after = self._cursor(now, before, listed, found)
        if before is None:
            after = replace(after, lost=frozenset(silent))
            return Reading(NO_REQUESTS, NO_REQUESTS, (NO_REQUESTS, NO_REQUESTS), after.to_json())
        arms = {
            service: [_since(before, uid, service, snapshot) for uid, snapshot in each.items()]
            for service, each in found.items()
        }
        answering = {service for service, each in arms.items() if total(each).requests}
        after = replace(after, lost=frozenset(silent | (before.lost - answering)))
        return Reading(
            total(arms[self._candidate]),
            total(arms[self._stable]),
            _halves(arms[self._stable]),
            after.to_json(),
            met=bool(after.pods.keys() - before.pods.keys()),
            torn=bool(before.lost or silent or before.pods.keys() - _uids(listed)),
        )

    def close(self) -> None:
        """Nothing is kept open."""

    def _snapshot(self, pod: Pod) -> Snapshot:
        samples = canonical(self._scraper.samples(pod), self._name, pod.service, "")
        return snapshot_of(samples, self._name, [pod.service])

    def _cursor(
        self,
        now: float,
        before: _Cursor | None,
        listed: Mapping[str, Iterable[Pod]],
        found: Mapping[str, Mapping[str, Snapshot]],
    ) -> _Cursor:
        """Keep what was known of pods that are there and do not serve now."""
        there = _uids(listed)
        known = before.pods if before is not None else {}
        kept = {uid: snapshot for uid, snapshot in known.items() if uid in there}
        return _Cursor(now, kept | {u: s for each in found.values() for u, s in each.items()})


def _uids(listed: Mapping[str, Iterable[Pod]]) -> set[str]:
    return {pod.uid for pods in listed.values() for pod in pods}


def _since(before: _Cursor, uid: str, service: str, snapshot: Snapshot) -> Arm:
    known = before.pods.get(uid)
    if known is None:
        if snapshot.start <= before.at:
            return NO_REQUESTS  # it may have counted before the cursor
        known = replace(snapshot, services={service: {}})
    return delta(known, snapshot, service)


def total(arms: Iterable[Arm]) -> Arm:
    """Return what several processes of one version did together."""
    found = list(arms)
    if not found:
        return NO_REQUESTS
    latency = {metric for arm in found for metric in arm.latency}
    return Arm(
        requests=sum(arm.requests for arm in found),
        errors=sum(arm.errors for arm in found),
        latency={
            metric: np.sum([a.latency[metric] for a in found if metric in a.latency], axis=0)
            for metric in sorted(latency)
        },
        scores={},
        draws=sum(arm.draws for arm in found),
    )


def _halves(arms: list[Arm]) -> tuple[Arm, Arm]:
    """Return two halves of a version's pods, of the same size; empty where there are none."""
    if len(arms) < len(HALVES) or len(arms) % 2:
        return NO_REQUESTS, NO_REQUESTS
    return total(arms[::2]), total(arms[1::2])


def samples_of(text: str, where: str) -> list[Sample]:
    """Return the lines of a scrape in Prometheus's text format."""
    try:
        return [
            Sample(sample.name, sample.labels, sample.value)
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        ]
    except ValueError as problem:
        raise ServingError(
            f"{where}: not the text format of Prometheus: {problem}",
            hint="does the engine export its metrics there?",
        ) from problem
