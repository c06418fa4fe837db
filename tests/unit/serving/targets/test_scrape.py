"""What is read of pods, and how."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from penstock.core.errors import NotReady
from serving.kube.calls import Call
from serving.kube.errors import Forbidden
from serving.kube.patience import Patience, Tries
from serving.sources.pods import Pod
from serving.targets.scrape import PodScraper, PrometheusScraper, pod_of, prometheus

POD = Pod("u1", "m-v1-predictor-abc", "m-v1", "10.0.0.7:8080", True)


class Api:
    """The part of an API server that is asked for pods."""

    def __init__(self, pods: list[dict[str, Any]] | None = None, *, allowed: bool = True) -> None:
        self.found, self.allowed, self.asked = pods or [], allowed, list[Call]()
        self.patience = Patience()

    def list(self, call: Call) -> tuple[list[dict[str, Any]], str]:
        self.asked.append(call)
        return self.found, "1"

    def text(self, call: Call, tries: Tries | None = None) -> str:
        self.asked.append(call)
        if not self.allowed:
            raise Forbidden("get Pod proxy: no")
        return "penstock_users_start_time_seconds 5.0\n"


class Cluster:
    """A cluster whose API is `Api`."""

    namespace = "models"

    def __init__(self, api: Api) -> None:
        self.api = api


def _pod(*, ready: str = "True", **metadata: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "p", "uid": "u", **metadata},
        "spec": {"containers": [{"ports": [{"containerPort": 8080}]}]},
        "status": {"podIP": "10.0.0.7", "conditions": [{"type": "Ready", "status": ready}]},
    }


def _selector(service: str) -> str:
    return f"of={service}"


def _scraper(api: Api, answer: Any) -> PodScraper:
    return PodScraper(Cluster(api), _selector, httpx.MockTransport(answer))  # type: ignore[arg-type]


def test_a_pod_is_where_its_port_is() -> None:
    assert pod_of(_pod(), "m-v1") == Pod("u", "p", "m-v1", "10.0.0.7:8080", True)
    assert not pod_of(_pod(ready="False"), "m-v1").ready
    annotated = _pod(annotations={"prometheus.io/port": "9090"})
    assert pod_of(annotated, "m-v1").address == "10.0.0.7:9090"
    theirs = {"prometheus.kserve.io/port": "8082", "prometheus.kserve.io/path": "/counts"}
    adopted = pod_of(_pod(annotations=theirs), "m")
    assert (adopted.address, adopted.path) == ("10.0.0.7:8082", "/counts")
    bare = {**_pod(), "spec": {"containers": [{}]}, "status": {}}
    assert pod_of(bare, "m-v1") == Pod("u", "p", "m-v1", ":8080", False)


def test_an_address_of_ipv6_stands_in_brackets() -> None:
    six = _pod()
    six["status"]["podIP"] = "fd00::7"
    pod = pod_of(six, "m-v1")
    assert pod.address == "[fd00::7]:8080"
    scraper = _scraper(Api(), lambda r: httpx.Response(200, text=f"at_{r.url.port} 1\n"))
    assert [s.name for s in scraper.samples(pod)] == ["at_8080"]
    strange = Pod("u1", "p", "m-v1", "fd00::7:8080", True)
    with pytest.raises(NotReady):
        scraper.samples(strange)


def test_pods_that_end_are_left_out() -> None:
    api = Api([_pod(), _pod(deletionTimestamp="now")])
    assert len(_scraper(api, lambda _r: httpx.Response(200)).pods("m-v1")) == 1
    assert dict(api.asked[0].query) == {"labelSelector": "of=m-v1"}


def test_pods_are_read_directly() -> None:
    api = Api()
    scraper = _scraper(api, lambda r: httpx.Response(200, text=f"from_{r.url.host[-1]} 1\n"))
    assert [s.name for s in scraper.samples(POD)] == ["from_7"]
    assert api.asked == []


def test_an_engine_that_has_its_metrics_elsewhere_is_asked_there() -> None:
    pod = pod_of(_pod(annotations={"prometheus.io/path": "/prometheus/metrics"}), "m-v1")
    scraper = _scraper(Api(), lambda r: httpx.Response(200, text=f"at{r.url.path.count('/')} 1\n"))
    assert [s.name for s in scraper.samples(pod)] == ["at2"]


def test_one_lost_packet_does_not_end_the_direct_way() -> None:
    """A network's policy may not know a new pod yet, and not every account may use the proxy."""
    lost = iter([True, False])

    def answer(_: httpx.Request) -> httpx.Response:
        if next(lost):
            raise httpx.ConnectTimeout("lost")
        return httpx.Response(200, text="counted 1\n")

    scraper = _scraper(Api(allowed=False), answer)
    with pytest.raises(NotReady):
        scraper.samples(POD)
    assert [s.name for s in scraper.samples(POD)] == ["counted"]


@pytest.mark.parametrize("unreached", [httpx.ConnectTimeout, httpx.ConnectError])
def test_where_addresses_mean_nothing_the_api_server_is_asked(
    unreached: type[httpx.TransportError],
) -> None:
    def answer(_request: httpx.Request) -> httpx.Response:
        raise unreached("no way")

    api = Api()
    scraper = _scraper(api, answer)
    assert [s.value for s in scraper.samples(POD)] == [5.0]
    assert (
        api.asked[0].path
        == "/api/v1/namespaces/models/pods/m-v1-predictor-abc%3A8080/proxy/metrics"
    )
    with pytest.raises(NotReady, match="get Pod proxy: no"):
        _scraper(Api(allowed=False), answer).samples(POD)


def test_a_pod_that_answered_once_and_is_slow_now_is_no_reason_to_ask_elsewhere() -> None:
    answers = [httpx.Response(200, text="a 1\n"), None, httpx.Response(200, text="a 2\n")]

    def answer(_request: httpx.Request) -> httpx.Response:
        given = answers.pop(0)
        if given is None:
            raise httpx.ConnectTimeout("later")
        return given

    api = Api()
    scraper = _scraper(api, answer)
    scraper.samples(POD)
    with pytest.raises(NotReady, match="later"):
        scraper.samples(POD)
    assert [s.value for s in scraper.samples(POD)] == [2.0]
    assert api.asked == []


@pytest.mark.parametrize("status", [404, 500])
def test_a_pod_that_does_not_tell_is_no_evidence(status: int) -> None:
    with pytest.raises(NotReady, match=POD.name):
        _scraper(Api(), lambda _r: httpx.Response(status)).samples(POD)


def _prometheus(answer: httpx.Response) -> PrometheusScraper:
    seen: list[str] = []

    def reply(request: httpx.Request) -> httpx.Response:
        seen.append(request.url.params["query"])
        assert 'pod="m-v1-predictor-abc"' in seen[-1]
        return answer

    transport = httpx.MockTransport(reply)
    return PrometheusScraper(Cluster(Api()), _selector, "http://p", transport)  # type: ignore[arg-type]


def test_prometheus_tells_what_it_scraped_last() -> None:
    metric = {"__name__": "penstock_users_requests_total", "code": "200"}
    body = {"data": {"result": [{"metric": metric, "value": [1.0, "42"]}]}}
    found = _prometheus(httpx.Response(200, json=body)).samples(POD)
    assert [(s.name, s.labels["code"], s.value) for s in found] == [
        ("penstock_users_requests_total", "200", 42.0)
    ]


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (httpx.Response(200, json={"data": {"result": []}}), "no series"),
        (httpx.Response(503), "503"),
        (httpx.Response(200, text="<html>"), "Prometheus at http://p"),
    ],
)
def test_a_prometheus_that_does_not_know_is_no_evidence(answer: httpx.Response, says: str) -> None:
    with pytest.raises(NotReady, match=says):
        _prometheus(answer).samples(POD)


@pytest.mark.parametrize(
    ("answer", "ok", "says"),
    [
        (httpx.Response(200, json={"data": {"result": []}}), True, "scrapes 0 pods of namespace n"),
        (
            httpx.Response(200, json={"data": {"result": [{"metric": {"pod": "a"}}]}}),
            True,
            "http://p scrapes 1 pods",
        ),
        (httpx.Response(503), False, "503"),
    ],
)
def test_a_prometheus_is_asked_before_anything_depends_on_it(
    answer: httpx.Response, ok: bool, says: str
) -> None:
    check = prometheus("http://p", "n", httpx.MockTransport(lambda _request: answer))
    assert (check.ok, says in check.found, bool(check.hint)) == (ok, True, not ok)
