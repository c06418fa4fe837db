"""Evidence from users' requests: the gateway's counters, read as differences."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol

import httpx
from prometheus_client.parser import text_string_to_metric_families

from penstock.core.errors import NotReady, ServingError
from serving.rollout.evidence import NO_REQUESTS, Arm
from serving.sources.counters import Sample, Snapshot, delta, halves, snapshot_of

_PREFIX = "penstock_gateway_"


class Reading(NamedTuple):
    """What users' requests showed since a cursor."""

    candidate: Arm
    stable: Arm
    control: tuple[Arm, Arm]
    """Two halves of the stable version's replicas; empty where there is one replica."""

    cursor: str
    """Behind them."""

    met: bool = False
    """Whether the cursor knows a process that the one before did not: it counts only from a cursor
    that knows it, so this one is to be kept although it proves nothing."""

    torn: bool = False
    """Whether a version lost a process, or had none that could be sent users. What reached whom in
    that time says nothing about the shares, nor does a part of it about who failed."""


class Counters(Protocol):
    """What users' requests show of two versions of a model."""

    def read(self, cursor: str | None) -> Reading:
        """Return what candidate and stable did since the cursor, and the cursor after it.

        Without a cursor both are empty: what was counted before is no evidence.

        Raises:
            NotReady: The source does not answer. That is no evidence, not zero errors.
        """
        ...

    def close(self) -> None:
        """End the connections."""
        ...


class LiveCounters:
    """The `Counters` that the local gateway keeps.

    Args:
        gateway: The gateway's URL.
        name: The model's, as its HTTPRoute has it.
        candidate: InferenceService that is judged.
        stable: InferenceService that it is compared with.
        timeout_s: The longest wait for the metrics.
        transport: Another way to the gateway than the network.
    """

    def __init__(
        self,
        gateway: str,
        name: str,
        *,
        candidate: str,
        stable: str,
        timeout_s: float = 5.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._url = f"{gateway.rstrip('/')}/metrics"
        self._name, self._candidate, self._stable = name, candidate, stable
        self._client = httpx.Client(timeout=timeout_s, transport=transport, trust_env=False)

    def read(self, cursor: str | None) -> Reading:
        """Return what candidate and stable did since the cursor, and the cursor after it.

        Without a cursor both are empty: what was counted before is no evidence. Committed
        together with what it proved, a cursor counts every request once.

        Raises:
            NotReady: The gateway does not answer. That is no evidence, not zero errors.
            ServingError: What answers is not the gateway, or the cursor is none.
        """
        before = None if cursor is None else Snapshot.from_json(cursor)
        now = snapshot_of(self._scrape(), self._name, (self._candidate, self._stable))
        if before is None:
            nothing = (NO_REQUESTS, NO_REQUESTS)
            return Reading(*nothing, nothing, now.to_json())
        return Reading(
            delta(before, now, self._candidate),
            delta(before, now, self._stable),
            halves(before, now, self._stable),
            now.to_json(),
        )

    def close(self) -> None:
        """End the connections."""
        self._client.close()

    def _scrape(self) -> Iterator[Sample]:
        try:
            response = self._client.get(self._url)
        except httpx.HTTPError as problem:
            raise NotReady(
                self._url,
                reason=f"{type(problem).__name__}: {problem}",
                waited_s=0,
                hint="penstock local status",
            ) from problem
        if not response.is_success:
            raise NotReady(self._url, reason=f"HTTP {response.status_code}", waited_s=0)
        try:
            for family in text_string_to_metric_families(response.text):
                if family.name.startswith(_PREFIX):
                    for sample in family.samples:
                        yield Sample(sample.name, sample.labels, sample.value)
        except ValueError as problem:
            raise ServingError(
                f"{self._url}: not the text format of Prometheus: {problem}",
                hint="is this the URL of Penstock's gateway?",
            ) from problem
