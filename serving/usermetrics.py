"""What users' requests showed of a version, counted where they are answered.

Counters start at zero with the process, and `…_start_time_seconds` says when that was. All counters
of a request change together, at its end, so that no scrape sees half of one.

A request fails its version if the status is 429 or 500 and above, or if a streamed answer broke
off or ended in an error. 429 counts because a version that has no room is one that did not answer.
Other 4xx are the client's, and one that left (499) saw no failure.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import accumulate

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector

from serving.rollout.evidence import BUCKETS, bound_of, bucket_of

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
LABELS = ("name", "service", "half")
GATEWAY = "penstock_gateway"
ENGINE = "penstock_users"
"""Prefixes of the series."""


@dataclass(slots=True)
class Outcome:
    """How a request ended."""

    status: int = 499
    """The client went away, unless something else is said."""

    drawn: bool = True
    """Whether the split chose the version for it, and not its conversation long before."""

    half: str = ""
    """Of the version's replicas, where the one is that was asked."""

    broken: bool = False
    """Whether the answer lacks its end."""

    head_s: float | None = None
    ttft_s: float | None = None
    tpot_s: float | None = None
    """None where it is undefined, as for every answer that is not streamed."""

    @property
    def failed(self) -> bool:
        """Whether it is held against the version."""
        return self.broken or self.status == 429 or self.status >= 500


class UserMetrics:
    """Counters of users' requests, in a registry of their own.

    Args:
        prefix: Of every series.
    """

    content_type = CONTENT_TYPE

    def __init__(self, prefix: str) -> None:
        self.registry = CollectorRegistry()
        self._prefix = prefix
        self.ttft = _latencies(
            f"{prefix}_time_to_first_token_seconds",
            "Until the first event with content; streamed answers only.",
        )
        self.tpot = _latencies(
            f"{prefix}_time_per_output_token_seconds",
            "Mean per request, between events with content.",
        )
        self.registry.register(self.ttft)
        self.registry.register(self.tpot)
        self.draws = self.counter("draws", "Requests for which the split chose a version.")
        self.requests = self.counter("requests", "Requests answered.", "code")
        self.failures = self.counter("failures", "Requests that failed their version.")
        started = Gauge(
            f"{prefix}_start_time_seconds",
            "When the counters began, in seconds since 1970.",
            registry=self.registry,
        )
        started.set(time.time())

    def ended(self, name: str, service: str, outcome: Outcome) -> None:
        """Count a request; one that failed has no latencies, it is judged as a failure."""
        labels = (name, service, outcome.half)
        self.requests.labels(*labels, str(outcome.status)).inc()
        if outcome.drawn:
            self.draws.labels(*labels).inc()
        failures = self.failures.labels(*labels)  # 0 is shown too
        if outcome.failed:
            failures.inc()
            return
        if outcome.ttft_s is not None:
            self.ttft.observe(labels, bucket_of(outcome.ttft_s), outcome.ttft_s)
        if outcome.tpot_s is not None:
            self.tpot.observe(labels, bucket_of(outcome.tpot_s), outcome.tpot_s)

    def counter(self, name: str, documentation: str, *labels: str) -> Counter:
        """Return a new counter per version."""
        return Counter(
            f"{self._prefix}_{name}", documentation, (*LABELS, *labels), registry=self.registry
        )

    def render(self) -> bytes:
        """Return the text that Prometheus scrapes."""
        return generate_latest(self.registry)


class Fine(Collector):
    """A histogram per version over the buckets of evidence, hundreds of them.

    Shown are the buckets that hold something, each with the bound below it: that is exact for one
    series, and short. Bounds differ from series to series, so do not sum over them `by (le)`.

    Args:
        name: Of the series.
        documentation: In a sentence.
        size: How many buckets there are.
        end_of: Returns the largest value of a bucket; the last one has no end.
        labels: Names of the labels.
    """

    def __init__(
        self,
        name: str,
        documentation: str,
        size: int,
        end_of: Callable[[int], float],
        labels: tuple[str, ...] = LABELS,
    ) -> None:
        self._name, self._documentation, self._labels = name, documentation, labels
        self._size, self._end_of = size, end_of
        self._counts: dict[tuple[str, ...], list[int]] = {}
        self._sums: dict[tuple[str, ...], float] = {}

    def observe(self, labels: tuple[str, ...], bucket: int, value: float) -> None:
        """Count one value; called on the event loop only."""
        if labels not in self._counts:
            self._counts[labels], self._sums[labels] = [0] * self._size, 0.0
        self._counts[labels][bucket] += 1
        self._sums[labels] += value

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """Yield the histograms as Prometheus wants them: cumulative."""
        family = HistogramMetricFamily(self._name, self._documentation, labels=self._labels)
        for key, counts in self._counts.items():
            family.add_metric(list(key), self._cumulative(counts), self._sums[key])
        yield family

    def _cumulative(self, counts: list[int]) -> list[tuple[str, float]]:
        """Return `le` and count at or below it, rising."""
        totals = list(accumulate(counts))
        ends = {i for i, count in enumerate(counts[:-1]) if count}
        ends |= {i - 1 for i, count in enumerate(counts) if count and i}
        shown = [(repr(self._end_of(i)), float(totals[i])) for i in sorted(ends)]
        return [*shown, ("+Inf", float(totals[-1]))]  # the last bucket has no end


def _latencies(name: str, documentation: str) -> Fine:
    return Fine(name, documentation, BUCKETS, lambda i: bound_of(i + 1))
