"""What the gateway tells Prometheus, and what a version is judged by: counters per version.

Where a version has several replicas, they are counted in two halves of the same size (`half`: `a`
and `b`; empty where there is one replica, or one too many): the stable version is compared with
itself by them. A version's counts are the sum over its halves.

They start at zero with the process, and `penstock_gateway_start_time_seconds` says when that was.
All counters of a request change together, at its end, so that no scrape sees half of one.

A request fails its version if the status is 429 or 500 and above, the gateway's own 502, 503 and
504 included, or if a streamed answer broke off or ended in an error. 429 counts because a version
that has no room is one that did not answer. Other 4xx are the client's, and one that left (499)
saw no failure.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import accumulate

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector

from serving.rollout.evidence import BUCKETS, SCORE_STEPS, bound_of, bucket_of, score_steps

PREFIX = "penstock_gateway"
TTFT = f"{PREFIX}_time_to_first_token_seconds"
TPOT = f"{PREFIX}_time_per_output_token_seconds"
SCORE = f"{PREFIX}_score"
_LABELS = ("name", "service", "half")
_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


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


class Metrics:
    """The gateway's metrics, in a registry of their own."""

    content_type = "text/plain; version=0.0.4; charset=utf-8"

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.ttft = _latencies(TTFT, "Until the first event with content; streamed answers only.")
        self.tpot = _latencies(TPOT, "Mean per request, between events with content.")
        self.scores = Fine(
            SCORE,
            "What answers were found worth.",
            SCORE_STEPS + 1,
            lambda i: i / SCORE_STEPS,
            (*_LABELS, "metric"),
        )
        for each in (self.ttft, self.tpot, self.scores):
            self.registry.register(each)
        self.draws = self._counter("draws", "Requests for which the split chose a version.")
        self.requests = self._counter("requests", "Requests answered.", "code")
        self.failures = self._counter("failures", "Requests that failed their version.")
        self.replays = Counter(
            f"{PREFIX}_replays",
            "Requests for one version by name.",
            ("name", "service", "code"),
            registry=self.registry,
        )
        self.duration = self._histogram("request_duration_seconds", "Until the last byte.")
        self.first_byte = self._histogram("time_to_first_byte_seconds", "Until the answer's head.")
        self.in_flight = Gauge(
            f"{PREFIX}_requests_in_flight",
            "Requests not yet answered.",
            ("name", "service"),
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
        labels = (name, service, outcome.half)
        self.requests.labels(*labels, str(outcome.status)).inc()
        if outcome.drawn:
            self.draws.labels(*labels).inc()
        self.duration.labels(*labels).observe(seconds)
        if outcome.head_s is not None:
            self.first_byte.labels(*labels).observe(outcome.head_s)
        failures = self.failures.labels(*labels)  # 0 is shown too
        if outcome.failed:
            failures.inc()
            return
        if outcome.ttft_s is not None:
            self.ttft.observe(labels, bucket_of(outcome.ttft_s), outcome.ttft_s)
        if outcome.tpot_s is not None:
            self.tpot.observe(labels, bucket_of(outcome.tpot_s), outcome.tpot_s)

    def scored(self, labels: tuple[str, str, str], metric: str, score: float) -> None:
        """Count a score from 0 to 1 of an answer; labels are name, service and half."""
        self.scores.observe((*labels, metric), score_steps(score), score)

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
        labels: tuple[str, ...] = _LABELS,
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
