"""Counters of pods: every request once, and none that may have been counted before."""

from __future__ import annotations

import pytest

from penstock.core.errors import NotReady, ServingError
from serving.rollout.evidence import bucket_of
from serving.sources.counters import snapshot_of
from serving.sources.engines import canonical
from serving.sources.pods import Pod, PodCounters, Scraper, samples_of
from serving.usermetrics import ENGINE, Outcome, UserMetrics
from tests.fakes.engine_stubs import STUBS


class Pods:
    """Two versions' pods, as their engines would count."""

    def __init__(self, **replicas: int) -> None:
        self.now = 1000.0
        self.pods: dict[str, Pod] = {}
        self.metrics: dict[str, UserMetrics] = {}
        self.silent = ""
        for service, count in replicas.items():
            for number in range(count):
                self.start(service.replace("_", "-"), f"{service}-{number}")

    def start(self, service: str, uid: str, *, ready: bool = True) -> None:
        self.pods[uid] = Pod(uid, uid, service, f"{uid}:8080", ready)
        self.metrics[uid] = UserMetrics(ENGINE)
        started = self.metrics[uid].registry._names_to_collectors[f"{ENGINE}_start_time_seconds"]
        started.set(self.now)  # type: ignore[attr-defined]

    def answered(self, uid: str, *outcomes: Outcome) -> None:
        for outcome in outcomes:
            self.metrics[uid].ended("m", "", outcome)

    def counters(self) -> PodCounters:
        scraper = Scraper(
            lambda service: [p for p in self.pods.values() if p.service == service], self._samples
        )
        clock = lambda: self.now  # noqa: E731
        return PodCounters(scraper, "m", candidate="m-v2", stable="m-v1", clock=clock)

    def _samples(self, pod: Pod) -> list:  # type: ignore[type-arg]
        if pod.uid == self.silent:
            raise NotReady(pod.name, reason="refused", waited_s=0)
        return samples_of(self.metrics[pod.uid].render().decode(), pod.name)


@pytest.fixture
def pods() -> Pods:
    return Pods(m_v1=2, m_v2=1)


def test_requests_are_read_once_over_all_pods(pods: Pods) -> None:
    counters = pods.counters()
    pods.answered("m_v1-0", Outcome(200))
    first = counters.read(None)
    assert (first.candidate.requests, first.stable.requests) == (0, 0)
    pods.answered("m_v1-0", Outcome(200, ttft_s=0.1), Outcome(500))
    pods.answered("m_v1-1", Outcome(200, ttft_s=0.3))
    pods.answered("m_v2-0", Outcome(503), Outcome(404))
    for _ in range(2):  # a cursor that was not committed is read again
        read = counters.read(first.cursor)
        assert (read.stable.requests, read.stable.errors, read.stable.draws) == (3, 1, 3)
        assert (read.candidate.requests, read.candidate.errors) == (2, 1)
        seen = read.stable.latency["ttft_p95"].nonzero()[0].tolist()
        assert seen == [bucket_of(0.1), bucket_of(0.3)]
    assert [arm.requests for arm in read.control] == [2, 1]
    again = counters.read(read.cursor)
    assert (again.candidate.requests, again.stable.requests) == (0, 0)


def test_a_pod_that_restarted_counts_from_zero(pods: Pods) -> None:
    pods.answered("m_v2-0", Outcome(200), Outcome(200))
    cursor = pods.counters().read(None).cursor
    pods.now += 10
    pods.start("m-v2", "m_v2-0")
    pods.answered("m_v2-0", Outcome(500))
    read = pods.counters().read(cursor).candidate
    assert (read.requests, read.errors) == (1, 1)


def test_a_new_pod_counts_only_if_it_began_behind_the_cursor(pods: Pods) -> None:
    pods.start("m-v2", "old")
    del pods.pods["old"]
    cursor = pods.counters().read(None).cursor
    pods.pods["old"] = Pod("old", "old", "m-v2", "old:8080", True)
    pods.answered("old", Outcome(500))  # it may have been counted before it left the list
    pods.now += 10
    pods.start("m-v2", "new")
    pods.answered("new", Outcome(200))
    read = pods.counters().read(cursor)
    assert (read.candidate.requests, read.candidate.errors) == (1, 0)
    pods.answered("old", Outcome(500))
    assert pods.counters().read(read.cursor).candidate.errors == 1


def test_a_pod_that_was_not_ready_for_a_while_is_not_counted_twice(pods: Pods) -> None:
    pods.answered("m_v2-0", Outcome(200))
    cursor = pods.counters().read(None).cursor
    pods.pods["m_v2-0"] = pods.pods["m_v2-0"]._replace(ready=False)
    cursor = pods.counters().read(cursor).cursor
    pods.pods["m_v2-0"] = pods.pods["m_v2-0"]._replace(ready=True)
    pods.answered("m_v2-0", Outcome(200))
    assert pods.counters().read(cursor).candidate.requests == 1


def test_pods_that_get_ready_behind_the_cursor_count_from_one_that_knows_them(pods: Pods) -> None:
    for uid, pod in pods.pods.items():
        pods.pods[uid] = pod._replace(ready=False)
    first = pods.counters().read(None)
    assert not pods.counters().read(first.cursor).met
    for uid, pod in pods.pods.items():
        pods.pods[uid] = pod._replace(ready=True)
    pods.answered("m_v1-0", Outcome(200))  # perhaps before the cursor
    second = pods.counters().read(first.cursor)
    assert (second.stable.requests, second.met) == (0, True)
    pods.answered("m_v1-0", Outcome(200))
    third = pods.counters().read(second.cursor)
    assert (third.stable.requests, third.met) == (1, False)


def test_what_came_while_a_version_had_no_pod_is_no_evidence(pods: Pods) -> None:
    counters = pods.counters()
    first = counters.read(None)
    pods.answered("m_v1-0", Outcome(200))
    pods.answered("m_v2-0", Outcome(200))
    whole = counters.read(first.cursor)
    assert (whole.candidate.requests, whole.stable.requests, whole.torn) == (1, 1, False)

    del pods.pods["m_v2-0"]
    pods.answered("m_v1-0", *[Outcome(200)] * 50)  # all users are the stable version's now
    gone = counters.read(whole.cursor)
    assert gone.torn
    pods.now += 10
    pods.start("m-v2", "m_v2-1", ready=False)
    starts = counters.read(gone.cursor)
    assert starts.torn
    pods.pods["m_v2-1"] = pods.pods["m_v2-1"]._replace(ready=True)
    pods.answered("m_v1-0", *[Outcome(200)] * 50)  # the gateway has not seen it yet
    unseen = counters.read(starts.cursor)
    assert unseen.torn
    pods.answered("m_v2-1", Outcome(200))
    back = counters.read(unseen.cursor)
    assert (back.candidate.requests, back.torn) == (1, True)  # that time was not whole yet

    pods.answered("m_v1-0", Outcome(200))
    pods.answered("m_v2-1", Outcome(200))
    whole = counters.read(back.cursor)
    assert (whole.candidate.requests, whole.stable.requests, whole.torn) == (1, 1, False)


def test_a_split_that_reaches_nobody_is_told_as_long_as_there_are_pods(pods: Pods) -> None:
    counters = pods.counters()
    cursor = counters.read(None).cursor
    pods.answered("m_v1-0", *[Outcome(200)] * 50)
    read = counters.read(cursor)
    assert (read.candidate.requests, read.stable.requests, read.torn) == (0, 50, False)


def test_one_of_several_that_goes_tears_one_reading(pods: Pods) -> None:
    counters = pods.counters()
    cursor = counters.read(None).cursor
    del pods.pods["m_v1-1"]
    torn = counters.read(cursor)
    assert torn.torn
    assert not counters.read(torn.cursor).torn


def test_one_silent_pod_makes_all_of_it_no_evidence(pods: Pods) -> None:
    cursor = pods.counters().read(None).cursor
    pods.answered("m_v1-0", Outcome(200))
    pods.silent = "m_v1-1"
    with pytest.raises(NotReady, match="m_v1-1"):
        pods.counters().read(cursor)
    pods.silent = ""
    assert pods.counters().read(cursor).stable.requests == 1


@pytest.mark.parametrize("cursor", ["", "[]", "{}", '{"at": 1, "pods": {"a": "b"}}'])
def test_what_is_no_cursor_is_refused(pods: Pods, cursor: str) -> None:
    with pytest.raises(ServingError, match="no cursor"):
        pods.counters().read(cursor)


VLLM = """
process_start_time_seconds 5.0
vllm:time_to_first_token_seconds_bucket{le="0.1",model_name="m"} 2.0
vllm:time_to_first_token_seconds_bucket{le="0.25",model_name="m"} 3.0
vllm:time_to_first_token_seconds_bucket{le="+Inf",model_name="m"} 3.0
vllm:request_time_per_output_token_seconds_bucket{le="0.01",model_name="m"} 3.0
vllm:request_time_per_output_token_seconds_bucket{le="+Inf",model_name="m"} 3.0
http_requests_total{handler="/v1/chat/completions",method="POST",status="2xx"} 3.0
http_requests_total{handler="/v1/chat/completions",method="POST",status="5xx"} 1.0
http_requests_total{handler="/health",method="GET",status="2xx"} 99.0
"""


def test_vllm_is_read_in_the_same_words() -> None:
    found = canonical(samples_of(VLLM, "pod"), "m", "m-v1", "")
    totals: dict[str, float] = {}
    for sample in found:
        assert (sample.labels["name"], sample.labels["service"]) == ("m", "m-v1")
        if "le" not in sample.labels:
            totals[sample.name] = totals.get(sample.name, 0.0) + sample.value
    assert totals == {
        "penstock_gateway_start_time_seconds": 5.0,
        "penstock_gateway_requests_total": 4.0,
        "penstock_gateway_draws_total": 4.0,
        "penstock_gateway_failures_total": 1.0,
    }
    bounds = [s.labels["le"] for s in found if "first_token" in s.name]
    assert bounds == ["0.1", "0.25", "+Inf"]


@pytest.mark.parametrize("key", ["vllm", "sglang", "triton", "tgi"])
def test_every_engine_that_counts_failures_is_read_in_the_same_words(key: str) -> None:
    found = canonical(samples_of(STUBS[key].text + "\n", "pod"), "m", "m-v1", "")
    arm = snapshot_of(found, "m", ["m-v1"]).services["m-v1"][""]
    assert (arm.requests, arm.draws, arm.errors) == (9, 9, 2)
    assert ("ttft_p95" in arm.latency) == (key != "tgi")  # it tells no first token
    assert sum(arm.latency["tpot_p95"].values()) == 7


@pytest.mark.parametrize("key", ["tensorrt-llm", "huggingface"])
def test_an_engine_that_does_not_count_failures_shows_no_requests(key: str) -> None:
    found = canonical(samples_of(STUBS[key].text + "\n", "pod"), "m", "m-v1", "")
    arm = snapshot_of(found, "m", ["m-v1"]).services["m-v1"][""]
    assert (arm.requests, arm.draws, arm.errors) == (0, 0, 0)
    assert sum(arm.latency["ttft_p95"].values()) == 7


def test_what_no_engine_says_is_no_engine_s_scrape() -> None:
    assert canonical(samples_of("go_goroutines 5\n", "pod"), "m", "m-v1", "") == []
