"""What every stub counts, in the words that all engines share."""

from __future__ import annotations

import math

from serving.runtimes.catalog import RUNTIMES
from serving.runtimes.signals import HISTOGRAMS, SIGNALS, read
from serving.sources.pods import samples_of

VALUES = {
    "queued": 4,
    "running": 9,
    "kv_used": 0.25,
    "requests": 7,
    "prompt_tokens": 700,
    "answer_tokens": 90,
}
LATE = {0.5: 3.0, 1.0: 6.0, math.inf: 7.0}
UNTOLD = {
    "tgi": {"kv_used", "ttft"},
    "triton-engine": {"prompt_tokens", "answer_tokens", "tpot", "queue_time"},
}
"""What an engine does not show at all."""


def as_shown(key: str, text: str) -> None:
    """Check that an engine's scrape is read as what its stub counts."""
    runtime = RUNTIMES[key]
    seen = read(runtime.series, samples_of(text, key))
    there = SIGNALS.keys() - UNTOLD.get(key, set())
    assert set(runtime.series) == there
    told = {**VALUES, "requests": 9} if key == "tgi" else VALUES  # failed ones among them
    assert seen.values == {name: told[name] for name in told if name in there}
    assert seen.buckets.keys() == HISTOGRAMS & there
    for buckets in seen.buckets.values():
        assert buckets == LATE
