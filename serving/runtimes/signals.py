"""What any engine tells about its load, under names that are the same for all of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

Signal = Literal[
    "queued",
    "running",
    "kv_used",
    "requests",
    "prompt_tokens",
    "answer_tokens",
    "ttft",
    "tpot",
    "queue_time",
]
SIGNALS: dict[Signal, str] = {
    "queued": "requests that wait",
    "running": "requests that are computed",
    "kv_used": "used part of the KV cache, 0 to 1",
    "requests": "requests that ended",
    "prompt_tokens": "tokens of prompts",
    "answer_tokens": "tokens of answers",
    "ttft": "seconds to the first token",
    "tpot": "seconds per further token",
    "queue_time": "seconds of waiting",
}
HISTOGRAMS: frozenset[Signal] = frozenset({"ttft", "tpot", "queue_time"})
SHARES: frozenset[Signal] = frozenset({"kv_used"})


class Sample(Protocol):
    """One line of a scrape."""

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def labels(self) -> Mapping[str, str]: ...  # noqa: D102
    @property
    def value(self) -> float: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class Series:
    """Where an engine shows a signal."""

    name: str
    """As it stands in the scrape; of a histogram without `_bucket`."""

    labels: Mapping[str, str] = field(default_factory=dict)
    """Only lines count whose labels begin so."""

    unit: float = 1.0
    """What the engine's unit is worth in ours: 0.001 for milliseconds."""


@dataclass(frozen=True, slots=True)
class Answered:
    """Where an engine counts what it answered, failures among it."""

    every: tuple[Series, ...]
    failed: tuple[Series, ...]


@dataclass(frozen=True, slots=True)
class Seen:
    """What one scrape shows; a signal that the engine does not show is in neither."""

    values: Mapping[Signal, float]
    buckets: Mapping[Signal, Mapping[float, float]]
    """Upper bound in seconds → observations up to it."""


def read(shown: Mapping[Signal, Series], scrape: Iterable[Sample]) -> Seen:
    """Return the signals in a scrape of one process.

    Lines that differ in other labels are added up: models, ranks, ways to finish. A share is the
    largest of them, for the fullest cache is the one that makes requests wait.
    """
    values: dict[Signal, float] = {}
    buckets: dict[Signal, dict[float, float]] = {}
    lines = by_name(scrape)
    for signal, series in shown.items():
        found = matching(lines, series, "_bucket" if signal in HISTOGRAMS else "")
        if not found:
            continue
        if signal in HISTOGRAMS:
            bounds: dict[float, float] = defaultdict(float)
            for each in found:
                bounds[float(each.labels["le"]) * series.unit] += each.value
            buckets[signal] = dict(sorted(bounds.items()))
        else:
            amounts = [each.value * series.unit for each in found]
            values[signal] = max(amounts) if signal in SHARES else sum(amounts)
    return Seen(values, buckets)


def by_name(scrape: Iterable[Sample]) -> Mapping[str, list[Sample]]:
    """Return the lines of a scrape by their series."""
    lines: dict[str, list[Sample]] = defaultdict(list)
    for sample in scrape:
        lines[sample.name].append(sample)
    return lines


def matching(lines: Mapping[str, list[Sample]], series: Series, suffix: str = "") -> list[Sample]:
    """Return the lines of a series that count."""
    # Prometheus's parser for Python adds `_total` to counters that are named without it
    names = (f"{series.name}{suffix}", f"{series.name}{suffix}_total")
    return [
        each
        for name in names
        for each in lines.get(name, [])
        if all(each.labels.get(key, "").startswith(text) for key, text in series.labels.items())
    ]
