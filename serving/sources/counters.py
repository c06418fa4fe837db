"""From two readings of the gateway's counters to what happened between them."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from penstock.core.errors import ServingError
from serving.rollout.evidence import BUCKET_RATIO, BUCKETS, SHORTEST_S, Arm

Sparse = Mapping[int, int]
METRICS = {
    "penstock_gateway_time_to_first_token_seconds_bucket": "ttft_p95",
    "penstock_gateway_time_per_output_token_seconds_bucket": "tpot_p95",
}
"""Series → metric of the evidence."""

_START = "penstock_gateway_start_time_seconds"
_REQUESTS = "penstock_gateway_requests_total"
_FAILURES = "penstock_gateway_failures_total"


class Sample(NamedTuple):
    """One line of a scrape."""

    name: str
    labels: Mapping[str, str]
    value: float


@dataclass(frozen=True, slots=True)
class Counts:
    """What a version's counters showed."""

    requests: int = 0
    errors: int = 0
    latency: Mapping[str, Sparse] = field(default_factory=dict)
    """Metric → bucket → requests; buckets that hold nothing are left out."""

    def fell_below(self, before: Counts) -> bool:
        """Return whether any counter is smaller than before: then they began anew."""
        return (
            self.requests < before.requests
            or self.errors < before.errors
            or any(
                self.latency.get(metric, {}).get(bucket, 0) < count
                for metric, buckets in before.latency.items()
                for bucket, count in buckets.items()
            )
        )


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One reading: the counters of some versions, and since when they count."""

    start: float
    services: Mapping[str, Counts]

    def to_json(self) -> str:
        """Return the snapshot as a cursor: compact, and `from_json` gives it back."""
        services = {
            name: [counts.requests, counts.errors, counts.latency]
            for name, counts in self.services.items()
        }
        return json.dumps(
            {"start": self.start, "services": services}, separators=(",", ":"), sort_keys=True
        )

    @staticmethod
    def from_json(text: str) -> Snapshot:
        """Return what `to_json` wrote."""
        try:
            document = json.loads(text)
            services = {
                name: Counts(requests, errors, _keys_are_numbers(latency))
                for name, (requests, errors, latency) in document["services"].items()
            }
            return Snapshot(float(document["start"]), services)
        except (ValueError, KeyError, TypeError, AttributeError) as problem:
            raise ServingError(
                f"no cursor of live counters: {text[:80]!r}",
                hint="begin again without one; what was counted since is not evidence then",
            ) from problem


def _keys_are_numbers(latency: Mapping[str, Mapping[str, int]]) -> dict[str, dict[int, int]]:
    return {
        metric: {int(bucket): count for bucket, count in buckets.items()}
        for metric, buckets in latency.items()
    }


def delta(before: Snapshot, now: Snapshot, service: str) -> Arm:
    """Return what a version did between two readings.

    Counters that began anew, by their start or because one fell, count from zero: what they
    counted after the last reading of their former life is lost, and was never evidence.
    """
    new = now.services.get(service, Counts())
    old = before.services.get(service, Counts())
    if before.start != now.start or new.fell_below(old):
        old = Counts()
    latency = {}
    for metric in METRICS.values():
        latency[metric] = np.zeros(BUCKETS, dtype=np.int64)
        for sign, counts in ((1, new), (-1, old)):
            for bucket, count in counts.latency.get(metric, {}).items():
                latency[metric][bucket] += sign * count
    return Arm(new.requests - old.requests, new.errors - old.errors, latency)


def snapshot_of(samples: Iterable[Sample], name: str, services: Iterable[str]) -> Snapshot:
    """Return the counters of some versions of a model in a scrape.

    A version that no request reached yet is not in a scrape; its counters are zero. A scrape
    without the start of its counters is not the gateway's: `ServingError`.
    """
    scrape = list(samples)
    start = [sample.value for sample in scrape if sample.name == _START]
    if not start:
        raise ServingError(
            f"the metrics lack {_START}", hint="is this the URL of Penstock's gateway?"
        )
    of_name = [sample for sample in scrape if sample.labels.get("name") == name]
    return Snapshot(
        start[0],
        {
            service: _counts([each for each in of_name if each.labels["service"] == service])
            for service in services
        },
    )


def _counts(samples: Sequence[Sample]) -> Counts:
    bounds: dict[str, dict[float, int]] = {}
    for sample in samples:
        if sample.name in METRICS:
            cumulative = bounds.setdefault(METRICS[sample.name], {})
            cumulative[float(sample.labels["le"])] = int(sample.value)
    return Counts(
        sum(int(sample.value) for sample in samples if sample.name == _REQUESTS),
        sum(int(sample.value) for sample in samples if sample.name == _FAILURES),
        {metric: _buckets(cumulative) for metric, cumulative in bounds.items()},
    )


def _buckets(cumulative: Mapping[float, int]) -> Sparse:
    """Return what lies in each bucket; the gateway shows every bound around what holds something.

    So what was added up to a bound lies in the last bucket below it.
    """
    counts: Counter[int] = Counter()
    before = 0
    for bound, total in sorted(cumulative.items()):
        if total > before:
            counts[_bucket_below(bound)] += total - before
        before = total
    return dict(counts)


def _bucket_below(bound: float) -> int:
    """Return the bucket that ends at a bound: the inverse of `bound_of(bucket + 1)`."""
    if math.isinf(bound):
        return BUCKETS - 1
    return round(math.log(bound / SHORTEST_S) / math.log(BUCKET_RATIO)) - 1
