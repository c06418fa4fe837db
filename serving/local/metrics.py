"""What the gateway tells Prometheus, and what a version is judged by: counters per version.

Where a version has several replicas, they are counted in two halves of the same size (`half`: `a`
and `b`; empty where there is one replica, or one too many): the stable version is compared with
itself by them. A version's counts are the sum over its halves. The gateway's own 502, 503 and 504
fail the version too.
"""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

from serving.rollout.evidence import SCORE_STEPS, score_steps
from serving.usermetrics import GATEWAY, LABELS, Fine, Outcome, UserMetrics

_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Metrics(UserMetrics):
    """The gateway's metrics."""

    def __init__(self) -> None:
        super().__init__(GATEWAY)
        self.scores = Fine(
            f"{GATEWAY}_score",
            "What answers were found worth.",
            SCORE_STEPS + 1,
            lambda i: i / SCORE_STEPS,
            (*LABELS, "metric"),
        )
        self.registry.register(self.scores)
        self.replays = Counter(
            f"{GATEWAY}_replays",
            "Requests for one version by name.",
            ("name", "service", "code"),
            registry=self.registry,
        )
        self.duration = self._histogram("request_duration_seconds", "Until the last byte.")
        self.first_byte = self._histogram("time_to_first_byte_seconds", "Until the answer's head.")
        self.in_flight = Gauge(
            f"{GATEWAY}_requests_in_flight",
            "Requests not yet answered.",
            ("name", "service"),
            registry=self.registry,
        )

    def took(self, name: str, service: str, outcome: Outcome, seconds: float) -> None:
        """Count a request that ended, and how long it took."""
        labels = (name, service, outcome.half)
        self.duration.labels(*labels).observe(seconds)
        if outcome.head_s is not None:
            self.first_byte.labels(*labels).observe(outcome.head_s)
        self.ended(name, service, outcome)

    def scored(self, labels: tuple[str, str, str], metric: str, score: float) -> None:
        """Count a score from 0 to 1 of an answer; labels are name, service and half."""
        self.scores.observe((*labels, metric), score_steps(score), score)

    def _histogram(self, name: str, documentation: str) -> Histogram:
        return Histogram(
            f"{GATEWAY}_{name}", documentation, LABELS, buckets=_BUCKETS, registry=self.registry
        )
