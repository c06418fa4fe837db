"""From two readings of the gateway's counters to what happened between them."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from penstock.core.errors import ServingError
from serving.rollout.evidence import BUCKET_RATIO, BUCKETS, SCORE_STEPS, SHORTEST_S, Arm, Ints

Sparse = Mapping[int, int]
METRICS = {
    "penstock_gateway_time_to_first_token_seconds_bucket": "ttft_p95",
    "penstock_gateway_time_per_output_token_seconds_bucket": "tpot_p95",
}
"""Series → metric of the evidence."""

_START = "penstock_gateway_start_time_seconds"
_REQUESTS = "penstock_gateway_requests_total"
_FAILURES = "penstock_gateway_failures_total"
_DRAWS = "penstock_gateway_draws_total"
_SCORES = "penstock_gateway_score_bucket"
_JUDGED = {*METRICS, _REQUESTS, _FAILURES, _DRAWS, _SCORES}
HALVES = ("a", "b")
"""Labels of the two halves of a version's replicas."""


class Sample(NamedTuple):
    """One line of a scrape."""

    name: str
    labels: Mapping[str, str]
    value: float


class Counts(NamedTuple):
    """What the counters of a version, or of a half of its replicas, showed."""

    requests: int = 0
    errors: int = 0
    draws: int = 0
    latency: Mapping[str, Sparse] = {}
    """Metric → bucket → requests; buckets that hold nothing are left out."""

    scores: Mapping[str, Sparse] = {}
    """Metric → step → answers, likewise."""

    def fell_below(self, before: Counts) -> bool:
        """Return whether any counter is smaller than before: then they began anew."""
        plain = zip(self[:3], before[:3], strict=True)
        histograms = ((self.latency, before.latency), (self.scores, before.scores))
        return any(now < then for now, then in plain) or any(
            now.get(metric, {}).get(bucket, 0) < count
            for now, then in histograms
            for metric, buckets in then.items()
            for bucket, count in buckets.items()
        )


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One reading: the counters of some versions, and since when they count."""

    start: float
    services: Mapping[str, Mapping[str, Counts]]
    """InferenceService → half of its replicas, empty for none → counts."""

    def to_json(self) -> str:
        """Return the snapshot as a cursor: compact, and `from_json` gives it back."""
        services = {
            name: {half: list(counts) for half, counts in halves.items()}
            for name, halves in self.services.items()
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
                name: {half: _counts_of(*fields) for half, fields in halves.items()}
                for name, halves in document["services"].items()
            }
            return Snapshot(float(document["start"]), services)
        except (ValueError, KeyError, TypeError, AttributeError) as problem:
            raise ServingError(
                f"no cursor of live counters: {text[:80]!r}",
                hint="begin again without one; what was counted since is not evidence then",
            ) from problem


def _counts_of(
    requests: int,
    errors: int,
    draws: int,
    latency: Mapping[str, Mapping[str, int]],
    scores: Mapping[str, Mapping[str, int]],
) -> Counts:
    return Counts(requests, errors, draws, _keys_are_numbers(latency), _keys_are_numbers(scores))


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
    return _arm(_deltas(before, now, service).values())


def halves(before: Snapshot, now: Snapshot, service: str) -> tuple[Arm, Arm]:
    """Return what each half of a version's replicas did; both empty where there are no halves."""
    found = _deltas(before, now, service)
    one, other = (_arm([found[half]] if half in found else []) for half in HALVES)
    return one, other


def _deltas(before: Snapshot, now: Snapshot, service: str) -> dict[str, tuple[Counts, Counts]]:
    """Return, per half of the replicas, the counts now and those to take off."""
    new, old = now.services.get(service, {}), before.services.get(service, {})
    anew = before.start != now.start or any(
        new.get(half, Counts()).fell_below(counts) for half, counts in old.items()
    )
    return {half: (new[half], Counts() if anew else old.get(half, Counts())) for half in new}


def _arm(deltas: Iterable[tuple[Counts, Counts]]) -> Arm:
    found = list(deltas)
    scored = {metric for new, _ in found for metric in new.scores}
    return Arm(
        requests=sum(new.requests - old.requests for new, old in found),
        errors=sum(new.errors - old.errors for new, old in found),
        latency={
            metric: _difference([(n.latency, o.latency) for n, o in found], metric, BUCKETS)
            for metric in METRICS.values()
        },
        scores={
            metric: _difference([(n.scores, o.scores) for n, o in found], metric, SCORE_STEPS + 1)
            for metric in sorted(scored)
        },
        draws=sum(new.draws - old.draws for new, old in found),
    )


def _difference(
    pairs: Iterable[tuple[Mapping[str, Sparse], Mapping[str, Sparse]]], metric: str, size: int
) -> Ints:
    counts = np.zeros(size, dtype=np.int64)
    for new, old in pairs:
        for bucket, count in new.get(metric, {}).items():
            counts[bucket] += count
        for bucket, count in old.get(metric, {}).items():
            counts[bucket] -= count
    return counts


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
    found: dict[str, dict[str, list[Sample]]] = {service: {} for service in services}
    for sample in of_name:
        if sample.name in _JUDGED and sample.labels["service"] in found:
            of_service = found[sample.labels["service"]]
            of_service.setdefault(sample.labels.get("half", ""), []).append(sample)
    return Snapshot(
        start[0],
        {
            service: {half: _counts(lines) for half, lines in of_service.items()}
            for service, of_service in found.items()
        },
    )


def _counts(samples: Sequence[Sample]) -> Counts:
    latency: dict[str, dict[float, int]] = {}
    scores: dict[str, dict[float, int]] = {}
    totals = dict.fromkeys((_REQUESTS, _FAILURES, _DRAWS), 0)
    for sample in samples:
        value = int(sample.value)
        if sample.name in METRICS:
            latency.setdefault(METRICS[sample.name], {})[float(sample.labels["le"])] = value
        elif sample.name == _SCORES:
            scores.setdefault(sample.labels["metric"], {})[float(sample.labels["le"])] = value
        else:
            totals[sample.name] += value
    return Counts(
        totals[_REQUESTS],
        totals[_FAILURES],
        totals[_DRAWS],
        {metric: _buckets(bounds, _bucket_below) for metric, bounds in latency.items()},
        {metric: _buckets(bounds, _step_at) for metric, bounds in scores.items()},
    )


def _buckets(cumulative: Mapping[float, int], bucket_at: Callable[[float], int]) -> Sparse:
    """Return what lies in each bucket; the gateway shows every bound around what holds something.

    So what was added up to a bound lies in the last bucket below it.
    """
    counts: Counter[int] = Counter()
    before = 0
    for bound, total in sorted(cumulative.items()):
        if total > before:
            counts[bucket_at(bound)] += total - before
        before = total
    return dict(counts)


def _bucket_below(bound: float) -> int:
    """Return the bucket that ends at a bound: the inverse of `bound_of(bucket + 1)`."""
    if math.isinf(bound):
        return BUCKETS - 1
    return round(math.log(bound / SHORTEST_S) / math.log(BUCKET_RATIO)) - 1


def _step_at(bound: float) -> int:
    """Return the step of a score that ends at a bound; the last one has no end."""
    return SCORE_STEPS if math.isinf(bound) else round(bound * SCORE_STEPS)
