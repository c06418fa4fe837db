"""What engines export, in the words of the gateway's counters.

Penstock's CPU engine counts users' requests as the gateway does. Other engines count every request,
so their numbers are users' while nothing is replayed, as on the ramp; their histograms are coarse,
and a difference that stays inside one bucket is not seen. An engine that does not count failures
(`Runtime.answered`) shows no requests here: its users are no evidence, and shadow must be enough.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping

from serving.runtimes.catalog import RUNTIMES
from serving.runtimes.runtime import Runtime
from serving.runtimes.signals import Sample as Line
from serving.runtimes.signals import Series, Signal, by_name, matching, read
from serving.sources.counters import Sample
from serving.usermetrics import ENGINE, GATEWAY

_HISTOGRAMS: Mapping[Signal, str] = {
    "ttft": "time_to_first_token_seconds_bucket",
    "tpot": "time_per_output_token_seconds_bucket",
}
_STARTED = Series("process_start_time_seconds")
Found = Iterator[tuple[str, dict[str, str], float]]


def canonical(samples: Iterable[Sample], name: str, service: str, half: str) -> list[Sample]:
    """Return an engine's scrape as the gateway would have counted it.

    Args:
        samples: Of one process.
        name: The model's.
        service: The version it serves.
        half: Of the version's replicas; empty for none.
    """
    labels = {"name": name, "service": service, "half": half}
    scrape = list(samples)
    if any(sample.name.startswith(ENGINE) for sample in scrape):
        found = _own(scrape)
    else:
        found = _other(scrape)
    return [
        Sample(f"{GATEWAY}_{series}", {**labels, **more}, value) for series, more, value in found
    ]


def _own(scrape: Iterable[Sample]) -> Found:
    for sample in scrape:
        if sample.name.startswith(ENGINE):
            more = {key: sample.labels[key] for key in ("le", "code") if key in sample.labels}
            yield sample.name.removeprefix(f"{ENGINE}_"), more, sample.value


def _other(scrape: Iterable[Sample]) -> Found:
    lines = by_name(scrape)
    runtime = _engine(lines)
    if runtime is None:
        return
    # engines of several processes do not tell when they began; that they began anew shows in
    # counters that fell
    yield "start_time_seconds", {}, _sum(lines, (_STARTED,))
    seen = read(runtime.series, (line for every in lines.values() for line in every))
    for signal, series in _HISTOGRAMS.items():
        for bound, count in seen.buckets.get(signal, {}).items():
            yield series, {"le": "+Inf" if math.isinf(bound) else str(bound)}, count
    if runtime.answered is not None:
        every = _sum(lines, runtime.answered.every)
        yield "requests_total", {}, every
        yield "draws_total", {}, every
        yield "failures_total", {}, _sum(lines, runtime.answered.failed)


def _engine(lines: Mapping[str, list[Line]]) -> Runtime | None:
    """Return the runtime that knows most of a scrape's series; None where none knows any."""
    known = {each.key: _known(each, lines) for each in RUNTIMES.values() if not each.own}
    best = max(known, key=lambda key: known[key])
    return RUNTIMES[best] if known[best] else None


def _known(runtime: Runtime, lines: Mapping[str, list[Line]]) -> int:
    plain = [*runtime.series.values(), *(runtime.answered.every if runtime.answered else ())]
    return sum(
        bool(matching(lines, series) or matching(lines, series, "_bucket")) for series in plain
    )


def _sum(lines: Mapping[str, list[Line]], every: Iterable[Series]) -> float:
    return sum(line.value for series in every for line in matching(lines, series))
