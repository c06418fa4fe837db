"""What the engine tells Prometheus; the names are vLLM's, with Penstock's prefix."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator
from itertools import accumulate

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector

FINISHED_REASONS = ("stop", "length", "abort", "error")
LATENCY_S = (
    *(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0),
    *(80.0, 160.0),
)
TOKEN_S = (0.0025, 0.005, 0.01, 0.02, 0.03, 0.04, 0.05, 0.075, 0.1, 0.15, 0.2, 0.4, 1.0, 2.5)


class Metrics:
    """The metrics of one engine, in a registry of their own, labelled with `model_name`."""

    content_type = "text/plain; version=0.0.4; charset=utf-8"

    def __init__(self, model_name: str) -> None:
        self._model = model_name
        self._registry = CollectorRegistry()
        self.ttft = self._histogram("time_to_first_token_seconds", "Time to first token", LATENCY_S)
        self.tpot = self._histogram(
            "request_time_per_output_token_seconds", "Mean per request, first token out", TOKEN_S
        )
        self.itl = _PerToken(
            "penstock_inter_token_latency_seconds", "Between two tokens", model_name
        )
        self._registry.register(self.itl)
        self.e2e = self._histogram("e2e_request_latency_seconds", "Arrival to end", LATENCY_S)
        self.queue = self._histogram(
            "request_queue_time_seconds", "Arrival to admission", LATENCY_S
        )
        self.prompt_tokens = self._counter("prompt_tokens", "Prompt tokens processed")
        self.generation_tokens = self._counter("generation_tokens", "Tokens generated")
        success = Counter(
            "penstock_request_success",
            "Requests by how they ended",
            ("model_name", "finished_reason"),
            registry=self._registry,
        )
        self.finished = {reason: success.labels(model_name, reason) for reason in FINISHED_REASONS}

    def gauge(self, name: str, documentation: str, read: Callable[[], float]) -> None:
        """Adds a gauge that is read when Prometheus asks."""
        gauge = Gauge(f"penstock_{name}", documentation, ("model_name",), registry=self._registry)
        gauge.labels(self._model).set_function(read)

    def render(self) -> bytes:
        """Returns the text that Prometheus scrapes."""
        return generate_latest(self._registry)

    def _histogram(self, name: str, documentation: str, buckets: tuple[float, ...]) -> Histogram:
        histogram = Histogram(
            f"penstock_{name}",
            documentation,
            ("model_name",),
            buckets=buckets,
            registry=self._registry,
        )
        child: Histogram = histogram.labels(self._model)
        return child

    def _counter(self, name: str, documentation: str) -> Counter:
        counter = Counter(
            f"penstock_{name}", documentation, ("model_name",), registry=self._registry
        )
        child: Counter = counter.labels(self._model)
        return child


class _PerToken(Collector):
    """A histogram for what happens once per token; the library's takes ten times as long."""

    def __init__(self, name: str, documentation: str, model_name: str) -> None:
        self._name = name
        self._documentation = documentation
        self._model = model_name
        self._counts = [0] * (len(TOKEN_S) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """Counts one value; called on the event loop only."""
        self._counts[bisect_left(TOKEN_S, value)] += 1
        self._sum += value

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """Yields the histogram as Prometheus wants it: cumulative."""
        family = HistogramMetricFamily(self._name, self._documentation, labels=("model_name",))
        bounds = [*map(str, TOKEN_S), "+Inf"]
        totals = accumulate(self._counts)
        family.add_metric(
            [self._model], list(zip(bounds, map(float, totals), strict=True)), self._sum
        )
        yield family
