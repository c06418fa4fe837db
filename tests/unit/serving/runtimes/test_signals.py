"""Probes and metrics of every runtime, against a stub with the engine's own paths and names."""

from __future__ import annotations

import httpx
import pytest

from serving.kserve.facts import Facts
from serving.kserve.serving_runtimes import serving_runtime
from serving.runtimes.catalog import RUNTIMES
from serving.runtimes.signals import SIGNALS, Series, read
from serving.sources.counters import Sample
from serving.sources.pods import samples_of
from tests.fakes.engine_stubs import STUBS, served
from tests.unit.serving.runtimes.shown import as_shown


def test_every_engine_that_is_not_ours_has_a_stub() -> None:
    assert {key for key, each in RUNTIMES.items() if not each.own} == set(STUBS)


@pytest.mark.parametrize("key", STUBS)
def test_probes_are_answered_when_the_model_is_there_and_not_before(key: str) -> None:
    (container,) = serving_runtime(RUNTIMES[key], Facts())["spec"]["containers"]
    paths = {
        name: container[name]["httpGet"]["path"]
        for name in ("startupProbe", "readinessProbe", "livenessProbe")
    }
    with served(STUBS[key], loaded=False) as url:
        assert httpx.get(url + paths["startupProbe"]).status_code == 503
    with served(STUBS[key]) as url:
        assert {httpx.get(url + path).status_code for path in paths.values()} == {200}


@pytest.mark.parametrize("key", STUBS)
def test_metrics_say_the_same_in_every_engine(key: str) -> None:
    runtime = RUNTIMES[key]
    with served(STUBS[key]) as url:
        text = httpx.get(url + runtime.metrics).text
    as_shown(key, text)


def test_the_cpu_engine_shows_what_is_looked_for() -> None:
    from serving.engine.metrics import Metrics

    metrics = Metrics("chat")
    for name in ("num_requests_waiting", "num_requests_running", "kv_cache_usage_perc"):
        metrics.gauge(name, "", lambda: 0.5)
    for histogram in (metrics.ttft, metrics.tpot, metrics.queue):
        histogram.observe(0.3)
    metrics.prompt_tokens.inc(11)
    seen = read(RUNTIMES["cpu"].series, samples_of(metrics.render().decode(), "cpu"))
    assert seen.values.keys() | seen.buckets.keys() == SIGNALS.keys()
    assert seen.values["prompt_tokens"] == 11
    assert max(seen.buckets["ttft"].values()) == 1


def test_the_fullest_cache_counts_and_everything_else_adds_up() -> None:
    lines = [Sample("kv", {"rank": str(n)}, n / 10) for n in range(4)]
    lines += [Sample("run", {"rank": str(n)}, n) for n in range(4)]
    seen = read({"kv_used": Series("kv"), "running": Series("run")}, lines)
    assert seen.values == {"kv_used": 0.3, "running": 6}
    assert read({"queued": Series("other")}, lines).values == {}
