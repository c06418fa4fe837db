"""What the gateway tells Prometheus, and what a version is judged by: counters per version.

They start at zero with the process, and `penstock_gateway_start_time_seconds` says when that was.
All counters of a request change together, at its end, so that no scrape sees half of one.

A request fails its version if the status is 429 or 500 and above, the gateway's own 502, 503 and
504 included, or if a streamed answer broke off or ended in an error. 429 counts because a version
that has no room is one that did not answer. Other 4xx are the client's, and one that left (499)
saw no failure.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector

from serving.rollout.evidence import BUCKETS, bound_of, bucket_of

PREFIX = "penstock_gateway"
TTFT = f"{PREFIX}_time_to_first_token_seconds"
TPOT = f"{PREFIX}_time_per_output_token_seconds"
_LABELS = ("name", "service")
_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


@dataclass(slots=True)
class Outcome:
    """How a request ended."""

    status: int = 499
    """The client went away, unless something else is said."""

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


class Metrics:
    """The gateway's metrics, in a registry of their own."""

    content_type = "text/plain; version=0.0.4; charset=utf-8"

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.ttft = Latencies(TTFT, "Until the first event with content; streamed answers only.")
        self.tpot = Latencies(TPOT, "Mean per request, between events with content.")
        for each in (self.ttft, self.tpot):
            self.registry.register(each)
        self.requests = self._counter("requests", "Requests answered.", "code")
        self.failures = self._counter("failures", "Requests that failed their version.")
        self.replays = self._counter("replays", "Requests for one version by name.", "code")
        self.duration = self._histogram("request_duration_seconds", "Until the last byte.")
        self.first_byte = self._histogram("time_to_first_byte_seconds", "Until the answer's head.")
        self.in_flight = Gauge(
            f"{PREFIX}_requests_in_flight",
            "Requests not yet answered.",
            _LABELS,
            registry=self.registry,
        )
        started = Gauge(
            f"{PREFIX}_start_time_seconds",
            "When the counters began, in seconds since 1970.",
            registry=self.registry,
        )
        started.set(time.time())

    def ended(self, name: str, service: str, outcome: Outcome, seconds: float) -> None:
        """Count a request; one that failed has no latencies, it is judged as a failure."""
        self.requests.labels(name, service, str(outcome.status)).inc()
        self.duration.labels(name, service).observe(seconds)
        if outcome.head_s is not None:
            self.first_byte.labels(name, service).observe(outcome.head_s)
        failures = self.failures.labels(name, service)  # 0 is shown too
        if outcome.failed:
            failures.inc()
            return
        if outcome.ttft_s is not None:
            self.ttft.observe(name, service, outcome.ttft_s)
        if outcome.tpot_s is not None:
            self.tpot.observe(name, service, outcome.tpot_s)

    def render(self) -> bytes:
        """Return the text that Prometheus scrapes."""
        return generate_latest(self.registry)

    def _counter(self, name: str, documentation: str, *labels: str) -> Counter:
        return Counter(
            f"{PREFIX}_{name}", documentation, (*_LABELS, *labels), registry=self.registry
        )

    def _histogram(self, name: str, documentation: str) -> Histogram:
        return Histogram(
            f"{PREFIX}_{name}", documentation, _LABELS, buckets=_BUCKETS, registry=self.registry
        )


class Latencies(Collector):
    """A histogram per version over the buckets of evidence, all 256 of them.

    Shown are the buckets that hold something, each with the bound below it: that is exact for one
    series, and short. Bounds differ from series to series, so do not sum over them `by (le)`.
    """

    def __init__(self, name: str, documentation: str) -> None:
        self._name = name
        self._documentation = documentation
        self._counts: dict[tuple[str, str], list[int]] = {}
        self._sums: dict[tuple[str, str], float] = {}

    def observe(self, name: str, service: str, seconds: float) -> None:
        """Count one value; called on the event loop only."""
        key = (name, service)
        if key not in self._counts:
            self._counts[key], self._sums[key] = [0] * BUCKETS, 0.0
        self._counts[key][bucket_of(seconds)] += 1
        self._sums[key] += seconds

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """Yield the histograms as Prometheus wants them: cumulative."""
        family = HistogramMetricFamily(self._name, self._documentation, labels=_LABELS)
        for key, counts in self._counts.items():
            family.add_metric(list(key), _cumulative(counts), self._sums[key])
        yield family


def _cumulative(counts: list[int]) -> list[tuple[str, float]]:
    """Return `le` and count at or below it, rising; bucket i ends at `bound_of(i + 1)`."""
    totals = list(accumulate(counts))
    ends = {i for i, count in enumerate(counts[:-1]) if count}
    ends |= {i - 1 for i, count in enumerate(counts) if count and i}
    shown = [(repr(bound_of(i + 1)), float(totals[i])) for i in sorted(ends)]
    return [*shown, ("+Inf", float(totals[-1]))]  # the last bucket has no end
