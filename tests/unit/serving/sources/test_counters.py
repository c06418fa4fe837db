from __future__ import annotations

from collections.abc import Iterator

import httpx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.errors import NotReady, ServingError
from serving.local.metrics import Metrics
from serving.rollout.evidence import BUCKETS, Arm, bucket_of
from serving.sources.counters import Counts, Snapshot, delta
from serving.sources.live import LiveCounters
from serving.usermetrics import Outcome

OUTCOMES = st.sampled_from(
    [
        Outcome(200, ttft_s=0.1, tpot_s=0.01),
        Outcome(200, ttft_s=2.0, half="a"),
        Outcome(500, half="b"),
        Outcome(200, drawn=False),
    ]
)


@st.composite
def lives(draw: st.DrawFn) -> list[list[list[Outcome]]]:
    """Lives of a gateway; in each, what happened before each of its scrapes."""
    return draw(st.lists(st.lists(st.lists(OUTCOMES, max_size=4), max_size=4), max_size=4))


def _counts(outcomes: list[Outcome]) -> Counts:
    latency: dict[str, dict[int, int]] = {}
    for outcome in outcomes:
        for metric, value in (("ttft_p95", outcome.ttft_s), ("tpot_p95", outcome.tpot_s)):
            if value is not None:
                buckets = latency.setdefault(metric, {})
                buckets[bucket_of(value)] = buckets.get(bucket_of(value), 0) + 1
    failed, drawn = (
        sum(each) for each in ([o.failed for o in outcomes], [o.drawn for o in outcomes])
    )
    return Counts(len(outcomes), failed, drawn, latency)


def _snapshot(start: float, outcomes: list[Outcome]) -> Snapshot:
    """Return a reading of one version, in the halves of its replicas."""
    halves = {half: [o for o in outcomes if o.half == half] for half in ("", "a", "b")}
    return Snapshot(start, {"m-v2": {half: _counts(found) for half, found in halves.items()}})


def _sum(arms: list[Arm]) -> tuple[int, int, int, list[int], list[int]]:
    zero = np.zeros(BUCKETS, dtype=np.int64)
    return (
        sum(arm.requests for arm in arms),
        sum(arm.errors for arm in arms),
        sum(arm.draws for arm in arms),
        *(
            sum((arm.latency[metric] for arm in arms), zero).tolist()
            for metric in ("ttft_p95", "tpot_p95")
        ),
    )


@given(lives())
def test_differences_add_up_to_what_happened_over_any_restarts(
    history: list[list[list[Outcome]]],
) -> None:
    cursor, arms, scraped = Snapshot(0.0, {}).to_json(), list[Arm](), list[Outcome]()
    for start, scrapes in enumerate(history, start=1):
        so_far: list[Outcome] = []
        for happened in scrapes:
            so_far += happened
            now = _snapshot(float(start), so_far)
            arms.append(delta(Snapshot.from_json(cursor), now, "m-v2"))
            cursor = now.to_json()
        scraped += so_far
    whole = delta(Snapshot(0.0, {}), _snapshot(0.0, scraped), "m-v2")
    assert _sum(arms) == _sum([whole])


@given(st.lists(OUTCOMES), st.lists(OUTCOMES))
def test_a_counter_that_fell_began_anew(before: list[Outcome], after: list[Outcome]) -> None:
    old, new = _snapshot(1.0, before), _snapshot(1.0, after)
    arm = delta(old, new, "m-v2")
    fell = any(n.fell_below(o) for n, o in zip(*_both(new, old), strict=True))
    assert arm.requests == len(after) - (0 if fell else len(before))
    assert min(arm.requests, arm.errors) >= 0
    assert all((counts >= 0).all() for counts in arm.latency.values())


def _both(new: Snapshot, old: Snapshot) -> tuple[list[Counts], list[Counts]]:
    return list(new.services["m-v2"].values()), list(old.services["m-v2"].values())


@pytest.mark.parametrize("cursor", ["", "{", "[]", "{}", '{"start": 1, "services": {"a": 3}}'])
def test_what_is_no_cursor_is_refused(cursor: str) -> None:
    with pytest.raises(ServingError, match="no cursor"):
        Snapshot.from_json(cursor)


class _Gateway:
    """Metrics, as the gateway shows them."""

    def __init__(self) -> None:
        self.metrics = Metrics()
        self.source = LiveCounters(
            "http://gateway",
            "m",
            candidate="m-v2",
            stable="m-v1",
            transport=httpx.MockTransport(
                lambda _request: httpx.Response(200, content=self.metrics.render())
            ),
        )


@pytest.fixture
def gateway() -> Iterator[_Gateway]:
    made = _Gateway()
    yield made
    made.source.close()


def test_live_requests_are_read_once(gateway: _Gateway) -> None:
    gateway.metrics.took("m", "m-v1", Outcome(200), 1.0)
    candidate, stable, _, cursor, *_ = gateway.source.read(None)
    assert (candidate.requests, stable.requests) == (0, 0)
    for name, service, outcome in [
        ("m", "m-v1", Outcome(200, ttft_s=0.1)),
        ("m", "m-v2", Outcome(502)),
        ("m", "m-v2", Outcome(400)),
        ("m", "m-v3", Outcome(500)),
        ("other", "m-v2", Outcome(500)),
    ]:
        gateway.metrics.took(name, service, outcome, 1.0)
    for _ in range(2):  # a cursor that was not committed is read again
        candidate, stable, _, behind, *_ = gateway.source.read(cursor)
        assert (candidate.requests, candidate.errors) == (2, 1)
        assert (stable.requests, stable.errors) == (1, 0)
        assert stable.latency["ttft_p95"].nonzero()[0].tolist() == [bucket_of(0.1)]
    candidate, stable, *_ = gateway.source.read(behind)
    assert (candidate.requests, stable.requests) == (0, 0)


def test_the_halves_of_the_stable_version_are_read_apart(gateway: _Gateway) -> None:
    cursor = gateway.source.read(None).cursor
    for half, status in (("a", 200), ("a", 200), ("b", 500), ("", 200)):
        gateway.metrics.took("m", "m-v1", Outcome(status, half=half), 1.0)
    read = gateway.source.read(cursor)
    assert [(arm.requests, arm.errors) for arm in read.control] == [(2, 0), (1, 1)]
    assert (read.stable.requests, read.stable.errors) == (4, 1)
    assert [arm.requests for arm in gateway.source.read(read.cursor).control] == [0, 0]


def test_scores_that_come_later_are_read_once(gateway: _Gateway) -> None:
    cursor = gateway.source.read(None).cursor
    for score in (0.0, 0.5, 1.0, 1.0):
        gateway.metrics.scored(("m", "m-v2", ""), "helpful", score)
    gateway.metrics.scored(("m", "m-v1", "a"), "helpful", 0.25)
    read = gateway.source.read(cursor)
    assert read.candidate.scores["helpful"].nonzero()[0].tolist() == [0, 100, 200]
    assert read.candidate.scores["helpful"].sum() == 4
    assert read.stable.scores["helpful"].nonzero()[0].tolist() == [50]
    again = gateway.source.read(read.cursor)
    assert again.candidate.scores["helpful"].sum() == 0


def test_a_restarted_gateway_counts_from_zero(gateway: _Gateway) -> None:
    gateway.metrics.took("m", "m-v2", Outcome(200), 1.0)
    cursor = gateway.source.read(None).cursor
    gateway.metrics = Metrics()
    for _ in range(3):
        gateway.metrics.took("m", "m-v2", Outcome(200), 1.0)
    candidate, *_ = gateway.source.read(cursor)
    assert candidate.requests == 3


def _answers(response: httpx.Response) -> LiveCounters:
    transport = httpx.MockTransport(lambda _request: response)
    return LiveCounters("http://g", "m", candidate="m-v2", stable="m-v1", transport=transport)


@pytest.mark.parametrize(
    ("response", "error", "says"),
    [
        (httpx.Response(500), NotReady, "HTTP 500"),
        (httpx.Response(200, text="up 1\n"), ServingError, "start_time"),
        (httpx.Response(200, text="<html>\n"), ServingError, "start_time|text format"),
    ],
)
def test_what_is_missing_is_no_evidence(
    response: httpx.Response, error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        _answers(response).read(None)


def test_a_gateway_that_is_gone_is_no_evidence() -> None:
    source = LiveCounters("http://127.0.0.1:9", "m", candidate="m-v2", stable="m-v1")
    with pytest.raises(NotReady):
        source.read(None)
    source.close()
