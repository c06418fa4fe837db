from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from serving.local.metrics import Metrics
from serving.rollout.evidence import BUCKETS, bound_of, bucket_of
from serving.sources.counters import Sample, Snapshot, delta, snapshot_of
from serving.usermetrics import GATEWAY, Outcome

Labels = dict[str, str]


def _samples(metrics: Metrics) -> list[Sample]:
    return [
        Sample(sample.name, sample.labels, sample.value)
        for family in text_string_to_metric_families(metrics.render().decode())
        for sample in family.samples
    ]


@given(
    st.lists(
        st.one_of(
            st.floats(1e-5, 500.0),
            st.integers(0, BUCKETS).map(bound_of),
            st.integers(0, BUCKETS).map(lambda i: math.nextafter(bound_of(i), 0)),
        )
    )
)
def test_what_is_read_are_the_buckets_of_evidence(seconds: list[float]) -> None:
    metrics = Metrics()
    for each in seconds:
        metrics.took("m", "m-v1", Outcome(200, ttft_s=each, tpot_s=each), 1.0)
    seen = snapshot_of(_samples(metrics), "m", ["m-v1"])
    arm = delta(Snapshot(seen.start, {}), seen, "m-v1")
    wanted = np.bincount([bucket_of(each) for each in seconds], minlength=BUCKETS)
    assert (arm.requests, arm.errors) == (len(seconds), 0)
    for metric in ("ttft_p95", "tpot_p95"):
        assert (arm.latency[metric] == wanted).all()


def test_quantiles_of_one_series_are_exact_and_few_buckets_are_shown() -> None:
    metrics = Metrics()
    for seconds in (0.1, 0.1, 2.0, 1000.0):
        metrics.took("m", "m-v1", Outcome(200, ttft_s=seconds), 1.0)
    shown = [
        s
        for s in _samples(metrics)
        if s.name == f"{f'{GATEWAY}_time_to_first_token_seconds'}_bucket"
    ]
    assert [s.value for s in shown] == [0, 2, 2, 3, 3, 4]
    assert shown[-1].labels["le"] == "+Inf"
    ends = [float(s.labels["le"]) for s in shown]
    assert ends[0] < 0.1 < ends[1] == pytest.approx(ends[0] * 1.05)


@pytest.mark.parametrize(
    ("outcome", "failed"),
    [
        (Outcome(200), False),
        (Outcome(400), False),
        (Outcome(404), False),
        (Outcome(429), True),
        (Outcome(499), False),
        (Outcome(500), True),
        (Outcome(503), True),
        (Outcome(200, broken=True), True),
    ],
)
def test_what_fails_a_version(outcome: Outcome, failed: bool) -> None:
    metrics = Metrics()
    metrics.took("m", "m-v1", outcome, 1.0)
    counts = snapshot_of(_samples(metrics), "m", ["m-v1"]).services["m-v1"][""]
    assert (counts.requests, counts.errors) == (1, int(failed))


def test_a_failed_request_has_no_latencies() -> None:
    metrics = Metrics()
    metrics.took("m", "m-v1", Outcome(200, broken=True, ttft_s=1.0, tpot_s=1.0), 1.0)
    counts = snapshot_of(_samples(metrics), "m", ["m-v1"]).services["m-v1"][""]
    assert counts.latency == {}
