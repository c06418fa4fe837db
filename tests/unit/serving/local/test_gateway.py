"""The gateway over replicas that behave, break off, or are gone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from prometheus_client.parser import text_string_to_metric_families

from serving.cluster import Object
from serving.headers import NO_LOG, REPLAY, REQUEST, SERVICE, SESSION, VERSION
from serving.local.gateway import application
from serving.local.objects import SqliteCluster
from serving.local.requestlog import RequestLog
from serving.manifests import NAME, STICKY, route

Client = TestClient[web.Request, web.Application]
Test = Callable[[Client], Awaitable[None]]
CHAT = "/v1/chat/completions"


async def _well(request: web.Request) -> web.StreamResponse:
    body = await request.json()
    if not body.get("stream"):
        return web.json_response({"asked": body["model"]})
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    for piece in ("one", "two"):
        await response.write(_event(piece))
        await asyncio.sleep(0.01)
    return response


def _event(text: str) -> bytes:
    return f'data: {{"choices":[{{"delta":{{"content":"{text}"}}}}]}}\n\n'.encode()


async def _breaks_off(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    if not (await request.json()).get("stream"):
        response.content_length = 100
    await response.prepare(request)
    await response.write(_event("one"))
    assert request.transport is not None
    request.transport.abort()
    return response


async def _hangs_up(request: web.Request) -> web.StreamResponse:
    await request.read()
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


class _Unhurried(TestServer):
    """Does not cancel a handler whose client left: the next write finds out."""

    async def _make_runner(self, **kwargs: Any) -> web.AppRunner:
        return web.AppRunner(self.app, **{**kwargs, "handler_cancellation": False})


def _with_gateway(
    folder: Path,
    test: Test,
    handler: Callable[[web.Request], Awaitable[web.StreamResponse]] = _well,
    *,
    endpoints: tuple[str, ...] = (),
    ready: bool = True,
    silence_s: float = 30.0,
    weights: Mapping[str, int] = MappingProxyType({"m-v1": 100}),
    annotations: Mapping[str, str] = MappingProxyType({}),
    server: type[TestServer] = TestServer,
) -> None:
    async def run() -> None:
        upstream = web.Application()
        upstream.router.add_post(CHAT, handler)
        async with TestServer(upstream) as replica:
            found = (*endpoints, str(replica.make_url("")).rstrip("/")) if ready else ()
            cluster = SqliteCluster(folder / "cluster.db")
            for service in weights:
                made = cluster.create(_service(service))
                cluster.replace_status({**made, "status": {"endpoints": list(found)}})
            objects = route("m", weights)
            objects["metadata"]["annotations"] = dict(annotations)
            cluster.create(objects)
            app = application(cluster, RequestLog(folder / "requests.db"), silence_s=silence_s)
            async with TestClient(server(app)) as client:
                await test(client)

    asyncio.run(run())


def _service(name: str) -> Object:
    metadata = {"name": name, "labels": {NAME: name.rpartition("-")[0]}}
    return {"kind": "InferenceService", "metadata": metadata, "spec": {}}


async def _metric(client: Client, name: str) -> dict[str, float]:
    """Service to value of a metric's samples, added up."""
    found: dict[str, float] = {}
    text = await (await client.get("/metrics")).text()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == f"penstock_gateway_{name}":
                service = sample.labels.get("service", "")
                found[service] = found.get(service, 0.0) + sample.value
    return found


def test_an_answer_comes_through_with_its_version(tmp_path: Path) -> None:
    async def test(client: Client) -> None:
        async with client.post(CHAT, json={"model": "m"}) as answer:
            assert await answer.json() == {"asked": "m"}
            assert answer.headers[VERSION] == "m-v1"
        assert await _metric(client, "requests_total") == {"m-v1": 1.0}

    _with_gateway(tmp_path, test)


def test_a_stream_comes_through(tmp_path: Path) -> None:
    async def test(client: Client) -> None:
        async with client.post(CHAT, json={"model": "m", "stream": True}) as answer:
            assert await answer.read() == _event("one") + _event("two")

    _with_gateway(tmp_path, test)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"m"', b"{}", b'{"name": "m"}'])
def test_a_body_without_a_model_is_refused(tmp_path: Path, body: bytes) -> None:
    async def test(client: Client) -> None:
        async with client.post(CHAT, data=body) as answer:
            assert answer.status == 400
            assert (await answer.json())["error"]["code"] == "invalid_body"

    _with_gateway(tmp_path, test)


@pytest.mark.parametrize("model", ["other", 3, None, ["m"]])
def test_an_unknown_model_is_refused_with_the_known_ones(tmp_path: Path, model: object) -> None:
    async def test(client: Client) -> None:
        async with client.post(CHAT, json={"model": model}) as answer:
            assert answer.status == 404
            assert "served: m" in (await answer.json())["error"]["message"]

    _with_gateway(tmp_path, test)


def test_no_ready_replica_is_a_503_to_try_again(tmp_path: Path) -> None:
    async def test(client: Client) -> None:
        async with client.post(CHAT, json={"model": "m"}) as answer:
            assert (answer.status, answer.headers["Retry-After"]) == (503, "1")

    _with_gateway(tmp_path, test, ready=False)


def test_a_replica_that_is_gone_is_passed_over(tmp_path: Path) -> None:
    async def test(client: Client) -> None:
        for _ in range(4):
            async with client.post(CHAT, json={"model": "m"}) as answer:
                assert answer.status == 200

    _with_gateway(tmp_path, test, endpoints=("http://127.0.0.1:9",))  # discard: nobody listens


def test_a_request_that_a_replica_may_have_seen_is_not_sent_again(tmp_path: Path) -> None:
    seen = []

    async def handler(request: web.Request) -> web.StreamResponse:
        seen.append(request.path)
        return await _hangs_up(request)

    async def test(client: Client) -> None:
        async with client.post(CHAT, json={"model": "m"}) as answer:
            assert answer.status == 502
            assert (await answer.json())["error"]["code"] == "broken"

    _with_gateway(tmp_path, test, handler)
    assert seen == [CHAT]


def test_half_an_answer_is_no_answer(tmp_path: Path) -> None:
    async def test(client: Client) -> None:
        async with client.post(CHAT, json={"model": "m"}) as answer:
            assert answer.status == 502

    _with_gateway(tmp_path, test, _breaks_off)


def test_a_stream_that_broke_off_has_no_end(tmp_path: Path) -> None:
    async def test(client: Client) -> None:
        async with client.post(CHAT, json={"model": "m", "stream": True}) as answer:
            assert answer.status == 200
            with pytest.raises(aiohttp.ClientPayloadError):
                await answer.read()

    _with_gateway(tmp_path, test, _breaks_off)


def test_a_silent_replica_is_given_up(tmp_path: Path) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        await request.read()
        await asyncio.sleep(1)
        return web.Response()

    async def test(client: Client) -> None:
        async with client.post(CHAT, json={"model": "m"}) as answer:
            assert answer.status == 504

    _with_gateway(tmp_path, test, handler, silence_s=0.1)


def test_the_log_keeps_requests_but_those_that_ask_not_to(tmp_path: Path) -> None:
    async def test(client: Client) -> None:
        for headers in ({}, {NO_LOG: "1"}):
            async with client.post(CHAT, json={"model": "m"}, headers=headers) as answer:
                await answer.read()

    _with_gateway(tmp_path, test)
    (entry,) = RequestLog(tmp_path / "requests.db").newest(10)
    assert (entry.service, entry.status, entry.body) == ("m-v1", 200, '{"model": "m"}')


def test_models_and_routes_say_what_is_served(tmp_path: Path) -> None:
    async def test(client: Client) -> None:
        models = await (await client.get("/v1/models")).json()
        assert [m["id"] for m in models["data"]] == ["m"]
        assert await (await client.get("/routes")).json() == {"m": {"m-v1": 100}}
        assert (await client.get("/healthz")).status == 200

    _with_gateway(tmp_path, test)


def test_a_stream_is_timed_and_another_answer_is_not(tmp_path: Path) -> None:
    async def test(client: Client) -> None:
        for stream in (True, False):
            async with client.post(CHAT, json={"model": "m", "stream": stream}) as answer:
                await answer.read()
        for metric in ("time_to_first_token_seconds", "time_per_output_token_seconds"):
            assert await _metric(client, f"{metric}_count") == {"m-v1": 1.0}
        assert 0.005 < (await _metric(client, "time_per_output_token_seconds_sum"))["m-v1"] < 1.0

    _with_gateway(tmp_path, test)


def test_the_counters_say_when_they_began(tmp_path: Path) -> None:
    async def test(client: Client) -> None:
        assert abs((await _metric(client, "start_time_seconds"))[""] - time.time()) < 60

    _with_gateway(tmp_path, test)


@pytest.mark.parametrize("stream", [True, False])
def test_an_answer_that_broke_off_is_a_failure(tmp_path: Path, stream: bool) -> None:
    async def test(client: Client) -> None:
        async with client.post(CHAT, json={"model": "m", "stream": stream}) as answer:
            if stream:
                with pytest.raises(aiohttp.ClientPayloadError):
                    await answer.read()
        assert await _metric(client, "requests_total") == {"m-v1": 1.0}
        assert await _metric(client, "failures_total") == {"m-v1": 1.0}
        assert await _metric(client, "time_to_first_token_seconds_count") == {}

    _with_gateway(tmp_path, test, _breaks_off)


def test_an_error_inside_a_stream_is_a_failure(tmp_path: Path) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(_event("one") + b'data: {"error":{"message":"no"}}\n\n')
        return response

    async def test(client: Client) -> None:
        async with client.post(CHAT, json={"model": "m", "stream": True}) as answer:
            assert (await answer.read()).endswith(b"}\n\n")
        assert await _metric(client, "failures_total") == {"m-v1": 1.0}

    _with_gateway(tmp_path, test, handler)


def test_a_version_without_a_replica_fails_its_users(tmp_path: Path) -> None:
    async def test(client: Client) -> None:
        async with client.post(CHAT, json={"model": "m"}) as answer:
            assert answer.status == 503
        assert await _metric(client, "failures_total") == {"m-v1": 1.0}

    _with_gateway(tmp_path, test, ready=False)


@pytest.mark.parametrize("server", [TestServer, _Unhurried])
def test_a_client_that_left_is_no_failure(tmp_path: Path, server: type[TestServer]) -> None:
    ended = asyncio.Event()

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        try:
            for _ in range(500):
                await response.write(_event("word"))
                await asyncio.sleep(0.005)
        finally:
            ended.set()
        return response

    async def test(client: Client) -> None:
        answer = await client.post(CHAT, json={"model": "m", "stream": True})
        await answer.content.readany()
        answer.close()
        async with asyncio.timeout(2):
            await ended.wait()  # the replica is told that nobody waits
            while not await _metric(client, "requests_total"):
                await asyncio.sleep(0.01)
        text = await (await client.get("/metrics")).text()
        assert 'requests_total{code="499",half="",name="m",service="m-v1"} 1.0' in text
        assert await _metric(client, "failures_total") == {"m-v1": 0.0}
        assert await _metric(client, "requests_in_flight") == {"m-v1": 0.0}

    _with_gateway(tmp_path, test, handler, server=server)


async def _versions_of(client: Client, sessions: list[str]) -> list[str]:
    found = []
    for session in sessions:
        async with client.post(CHAT, json={"model": "m"}, headers={SESSION: session}) as answer:
            found.append(answer.headers[VERSION])
    return found


def test_a_conversation_stays_on_its_version(tmp_path: Path) -> None:
    async def test(client: Client) -> None:
        sessions = [str(n) for n in range(20)]
        first = await _versions_of(client, sessions)
        assert set(first) == {"m-v1", "m-v2"}
        assert await _versions_of(client, sessions) == first

    _with_gateway(tmp_path, test, weights={"m-v1": 50, "m-v2": 50})


def test_a_conversation_is_drawn_once_and_other_requests_every_time(tmp_path: Path) -> None:
    async def test(client: Client) -> None:
        for headers in [*({SESSION: name} for name in ("a", "a", "b", "a", "", "")), {}]:
            async with client.post(CHAT, json={"model": "m"}, headers=headers):
                pass
        assert await _metric(client, "draws_total") == {"m-v1": 5.0}
        assert await _metric(client, "requests_total") == {"m-v1": 7.0}

    _with_gateway(tmp_path, test)


def test_the_replicas_of_a_version_are_counted_in_two_halves(tmp_path: Path) -> None:
    """Also while the split itself takes turns, which must not choose the replica."""
    asked: list[int] = []

    async def replica(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        asked.append(request.transport.get_extra_info("sockname")[1])
        return await _well(request)

    async def run() -> None:
        apps = [web.Application(), web.Application()]
        for each in apps:
            each.router.add_post(CHAT, replica)
        cluster = SqliteCluster(tmp_path / "cluster.db")
        async with TestServer(apps[0]) as one, TestServer(apps[1]) as two:
            urls = [str(each.make_url("")).rstrip("/") for each in (one, two)]
            for service in ("m-v1", "m-v2"):
                made = cluster.create(_service(service))
                cluster.replace_status({**made, "status": {"endpoints": urls}})
            cluster.create(route("m", {"m-v1": 50, "m-v2": 50}))
            app = application(cluster, RequestLog(tmp_path / "requests.db"))
            async with TestClient(TestServer(app)) as client:
                for _ in range(8):
                    async with client.post(CHAT, json={"model": "m"}):
                        pass
                text = await (await client.get("/metrics")).text()
        for half in "ab":
            for service in ("m-v1", "m-v2"):
                labels = f'code="200",half="{half}",name="m",service="{service}"'
                assert f"penstock_gateway_requests_total{{{labels}}} 2.0" in text
        assert sorted(map(asked.count, set(asked))) == [4, 4]

    asyncio.run(run())


async def _score(client: Client, body: object) -> tuple[int, dict[str, Any]]:
    async with client.post("/v1/scores", json=body) as answer:
        return answer.status, await answer.json()


def test_an_answer_is_scored_later_and_once(tmp_path: Path) -> None:
    async def test(client: Client) -> None:
        async with client.post(CHAT, json={"model": "m"}) as answer:
            body = {"request": answer.headers[REQUEST], "metric": "helpful", "score": 0.5}
        assert await _score(client, body) == (200, {"counted": True, "reason": ""})
        refused = {"counted": False, "reason": "it was scored already"}
        assert await _score(client, body) == (200, refused)
        assert (await _score(client, {**body, "metric": "polite"}))[1]["counted"]
        assert await _metric(client, "score_count") == {"m-v1": 2.0}

    _with_gateway(tmp_path, test)


@pytest.mark.parametrize(
    ("change", "status", "says"),
    [
        ({"request": "nobody-1"}, 404, "too long ago"),
        ({"request": 7}, 404, "not given here"),
        ({"score": 1.5}, 400, "from 0 to 1"),
        ({"score": True}, 400, "from 0 to 1"),
        ({"metric": "So helpful!"}, 400, "lower-case"),
        ({"metric": None}, 400, "lower-case"),
    ],
)
def test_a_score_that_is_none_is_refused(
    tmp_path: Path, change: dict[str, object], status: int, says: str
) -> None:
    async def test(client: Client) -> None:
        async with client.post(CHAT, json={"model": "m"}) as answer:
            body = {"request": answer.headers[REQUEST], "metric": "helpful", "score": 1}
        found, refused = await _score(client, {**body, **change})
        assert found == status
        assert says in refused["error"]["message"]
        assert await _metric(client, "score_count") == {}

    _with_gateway(tmp_path, test)


def test_a_score_does_not_count_under_other_weights(tmp_path: Path) -> None:
    async def test(client: Client) -> None:
        async with client.post(CHAT, json={"model": "m"}) as answer:
            key = answer.headers[REQUEST]
        cluster = SqliteCluster(tmp_path / "cluster.db")
        old = cluster.get("HTTPRoute", "m")
        assert old is not None
        cluster.replace({**old, "spec": route("m", {"m-v1": 60, "m-v2": 40})["spec"]})
        async with asyncio.timeout(10):
            while (await (await client.get("/routes")).json())["m"] == {"m-v1": 100}:
                await asyncio.sleep(0.02)
        _, told = await _score(client, {"request": key, "metric": "helpful", "score": 1})
        reason = "the weights have changed since it was answered"
        assert told == {"counted": False, "reason": reason}

    _with_gateway(tmp_path, test)


def test_a_route_can_do_without_conversations(tmp_path: Path) -> None:
    async def test(client: Client) -> None:
        assert len(set(await _versions_of(client, ["one", "one"]))) == 2

    weights = {"m-v1": 50, "m-v2": 50}
    _with_gateway(tmp_path, test, weights=weights, annotations={STICKY: "false"})


def test_a_version_can_be_asked_by_name_without_being_counted_or_logged(tmp_path: Path) -> None:
    seen = []

    async def handler(request: web.Request) -> web.StreamResponse:
        seen.append(request.headers.get(REPLAY))
        return await _well(request)

    async def test(client: Client) -> None:
        for headers in ({SERVICE: "m-v2"}, {REPLAY: "1"}):
            async with client.post(CHAT, json={"model": "m"}, headers=headers) as answer:
                assert answer.headers[VERSION] == ("m-v2" if SERVICE in headers else "m-v1")
        assert await _metric(client, "requests_total") == {"m-v1": 1.0}
        assert await _metric(client, "replays_total") == {"m-v2": 1.0}

    _with_gateway(tmp_path, test, handler, weights={"m-v1": 100, "m-v2": 0})
    assert seen == ["1", None]  # a client cannot pass itself off as a replay
    assert [e.service for e in RequestLog(tmp_path / "requests.db").newest(9)] == ["m-v1"]


@pytest.mark.parametrize("service", ["m-v9", "other-v1", ""])
def test_a_version_of_another_name_is_refused(tmp_path: Path, service: str) -> None:
    async def test(client: Client) -> None:
        async with client.post(CHAT, json={"model": "m"}, headers={SERVICE: service}) as answer:
            assert answer.status == 404
            assert (await answer.json())["error"]["code"] == "service_not_found"

    _with_gateway(tmp_path, test, weights={"m-v1": 100, "other-v1": 0})


def test_the_log_is_redacted(tmp_path: Path) -> None:
    async def test(client: Client) -> None:
        body = {"model": "m", "messages": [{"role": "user", "content": "I am a@example.org"}]}
        async with client.post(CHAT, json=body) as answer:
            await answer.read()

    _with_gateway(tmp_path, test)
    (entry,) = RequestLog(tmp_path / "requests.db").newest(10)
    assert "I am <email>" in entry.body
