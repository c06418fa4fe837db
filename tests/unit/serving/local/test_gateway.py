"""The gateway over replicas that behave, break off, or are gone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from serving.cluster import Object
from serving.local.gateway import application
from serving.local.objects import SqliteCluster
from serving.local.requestlog import RequestLog
from serving.manifests import route

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
        await response.write(f"data: {piece}\n\n".encode())
    return response


async def _breaks_off(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    if not (await request.json()).get("stream"):
        response.content_length = 100
    await response.prepare(request)
    await response.write(b"data: one\n\n")
    assert request.transport is not None
    request.transport.abort()
    return response


async def _hangs_up(request: web.Request) -> web.StreamResponse:
    await request.read()
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


def _with_gateway(
    folder: Path,
    test: Test,
    handler: Callable[[web.Request], Awaitable[web.StreamResponse]] = _well,
    *,
    endpoints: tuple[str, ...] = (),
    ready: bool = True,
    silence_s: float = 30.0,
) -> None:
    async def run() -> None:
        upstream = web.Application()
        upstream.router.add_post(CHAT, handler)
        async with TestServer(upstream) as replica:
            found = (*endpoints, str(replica.make_url("")).rstrip("/")) if ready else ()
            cluster = SqliteCluster(folder / "cluster.db")
            made = cluster.create(_service("m-v1"))
            cluster.replace_status({**made, "status": {"endpoints": list(found)}})
            cluster.create(route("m", {"m-v1": 100}))
            app = application(cluster, RequestLog(folder / "requests.db"), silence_s=silence_s)
            async with TestClient(TestServer(app)) as client:
                await test(client)

    asyncio.run(run())


def _service(name: str) -> Object:
    return {"kind": "InferenceService", "metadata": {"name": name}, "spec": {}}


def test_an_answer_comes_through_with_its_version(tmp_path: Path) -> None:
    async def test(client: Client) -> None:
        async with client.post(CHAT, json={"model": "m"}) as answer:
            assert await answer.json() == {"asked": "m"}
            assert answer.headers["X-Penstock-Version"] == "m-v1"
        metrics = await (await client.get("/metrics")).text()
        assert 'penstock_gateway_requests_total{code="200",name="m",service="m-v1"} 1.0' in metrics

    _with_gateway(tmp_path, test)


def test_a_stream_comes_through(tmp_path: Path) -> None:
    async def test(client: Client) -> None:
        async with client.post(CHAT, json={"model": "m", "stream": True}) as answer:
            assert await answer.read() == b"data: one\n\ndata: two\n\n"

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
        for headers in ({}, {"X-Penstock-No-Log": "1"}):
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
