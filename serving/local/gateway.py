"""The way in: OpenAI requests, split by weight over the versions of a model, streamed through.

The `model` of a request names the HTTPRoute. `X-Penstock-Version` of the answer says which version
answered. A request with `X-Penstock-No-Log` is not logged. Counters start at zero with the process.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
from aiohttp import web
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from penstock.core.errors import PortOccupied
from serving.local.objects import SqliteCluster
from serving.local.processes import hold
from serving.local.requestlog import Entry, RequestLog
from serving.local.split import Split
from serving.manifests import weights_of

_REFRESH_S = 0.1
_LOG_PERIOD_S = 0.5
_LONGEST_BODY_BYTES = 8 << 20
_LONGEST_LOGGED_CHARS = 65_536
_LONGEST_SILENCE_S = 300.0
_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_HOP_BY_HOP = {"connection", "transfer-encoding", "content-length", "keep-alive", "date", "server"}


class Metrics:
    """Counters per version."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        labels = ["name", "service"]
        self.requests = Counter(
            "penstock_gateway_requests",
            "Requests answered.",
            [*labels, "code"],
            registry=self.registry,
        )
        self.duration = Histogram(
            "penstock_gateway_request_duration_seconds",
            "Until the last byte.",
            labels,
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self.first_byte = Histogram(
            "penstock_gateway_time_to_first_byte_seconds",
            "Until the answer's head.",
            labels,
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self.in_flight = Gauge(
            "penstock_gateway_requests_in_flight",
            "Requests not yet answered.",
            labels,
            registry=self.registry,
        )


@dataclass
class Table:
    """Where requests go, as the objects say."""

    splits: dict[str, Split] = field(default_factory=dict)
    endpoints: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def update(self, cluster: SqliteCluster) -> None:
        """Read the objects; a split whose weights did not change keeps its place."""
        splits = {}
        for obj in cluster.list("HTTPRoute"):
            name, weights = obj["metadata"]["name"], weights_of(obj)
            kept = self.splits.get(name)
            splits[name] = kept if kept and kept.weights == weights else Split(weights)
        self.splits = splits
        self.endpoints = {
            obj["metadata"]["name"]: tuple(obj.get("status", {}).get("endpoints", ()))
            for obj in cluster.list("InferenceService")
        }


@dataclass
class Gateway:
    """State of the process."""

    cluster: SqliteCluster
    log: RequestLog
    silence_s: float
    """A replica that sends no byte for this long is given up."""

    table: Table = field(default_factory=Table)
    metrics: Metrics = field(default_factory=Metrics)
    pending: list[Entry] = field(default_factory=list)
    turn: itertools.count[int] = field(default_factory=itertools.count)
    http: aiohttp.ClientSession = field(init=False)

    async def follow(self) -> None:
        """Take over changes of the objects."""
        seen = -1
        while True:
            version = await asyncio.to_thread(self.cluster.version)
            if version != seen:
                await asyncio.to_thread(self.table.update, self.cluster)
                seen = version
            await asyncio.sleep(_REFRESH_S)

    async def write_log(self) -> None:
        """Write the request log in batches."""
        while True:
            await asyncio.sleep(_LOG_PERIOD_S)
            await self.flush()

    async def flush(self) -> None:
        """Write what is pending."""
        if self.pending:
            entries, self.pending = self.pending, []
            await asyncio.to_thread(self.log.append, entries)


GATEWAY = web.AppKey("gateway", Gateway)


def application(
    cluster: SqliteCluster, log: RequestLog, *, silence_s: float = _LONGEST_SILENCE_S
) -> web.Application:
    """Return the gateway over a cluster's objects; a replica silent for `silence_s` is a 504."""
    app = web.Application(client_max_size=_LONGEST_BODY_BYTES)
    app[GATEWAY] = Gateway(cluster, log, silence_s)
    app.cleanup_ctx.append(_background)
    app.router.add_get("/healthz", _healthz)
    app.router.add_get("/metrics", _metrics)
    app.router.add_get("/routes", _routes)
    app.router.add_get("/v1/models", _models)
    for path in ("/v1/chat/completions", "/v1/completions"):
        app.router.add_post(path, _forward)
    return app


async def _background(app: web.Application) -> AsyncIterator[None]:
    gateway = app[GATEWAY]
    gateway.table.update(gateway.cluster)
    gateway.http = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, use_dns_cache=True),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=gateway.silence_s),
        auto_decompress=False,
    )
    tasks = [asyncio.create_task(gateway.follow()), asyncio.create_task(gateway.write_log())]
    yield
    for task in tasks:
        task.cancel()
    await gateway.flush()
    await gateway.http.close()


async def _healthz(_request: web.Request) -> web.Response:
    return web.Response(text="ok\n")


async def _metrics(request: web.Request) -> web.Response:
    body = generate_latest(request.app[GATEWAY].metrics.registry)
    return web.Response(body=body, headers={"Content-Type": "text/plain; version=0.0.4"})


async def _routes(request: web.Request) -> web.Response:
    """The weights in force: what really routes, not what was asked for."""
    splits = request.app[GATEWAY].table.splits
    return web.json_response({name: split.weights for name, split in splits.items()})


async def _models(request: web.Request) -> web.Response:
    names = sorted(request.app[GATEWAY].table.splits)
    data = [{"id": name, "object": "model", "created": 0, "owned_by": "penstock"} for name in names]
    return web.json_response({"object": "list", "data": data})


def _refusal(status: int, message: str, code: str, **headers: str) -> web.Response:
    kind = "invalid_request_error" if status < 500 else "server_error"
    body = {"error": {"message": message, "type": kind, "param": None, "code": code}}
    return web.json_response(body, status=status, headers=headers)


async def _forward(request: web.Request) -> web.StreamResponse:
    gateway = request.app[GATEWAY]
    body = await request.read()
    try:
        name = json.loads(body)["model"]
    except (ValueError, KeyError, TypeError):
        return _refusal(400, "the body must be a JSON object with a model", "invalid_body")
    split = gateway.table.splits.get(name) if isinstance(name, str) else None
    if split is None:
        known = ", ".join(sorted(gateway.table.splits)) or "none"
        return _refusal(
            404, f"no model {name!r} is served here; served: {known}", "model_not_found"
        )
    service = split.choose()
    endpoints = gateway.table.endpoints.get(service or "", ())
    if service is None or not endpoints:
        gateway.metrics.requests.labels(name, service or "", "503").inc()
        return _refusal(
            503, f"no replica of {name!r} is ready", "unavailable", **{"Retry-After": "1"}
        )
    return await _exchange(request, _Hop(gateway, name, service, endpoints, body))


@dataclass(frozen=True, slots=True)
class _Hop:
    """One request on its way."""

    gateway: Gateway
    name: str
    service: str
    endpoints: tuple[str, ...]
    body: bytes

    def urls(self) -> list[str]:
        """The replicas, each request starting at another one."""
        start = next(self.gateway.turn) % len(self.endpoints)
        return [*self.endpoints[start:], *self.endpoints[:start]]


async def _exchange(request: web.Request, hop: _Hop) -> web.StreamResponse:
    metrics, start = hop.gateway.metrics, time.perf_counter()
    in_flight = metrics.in_flight.labels(hop.name, hop.service)
    in_flight.inc()
    status = 499  # the client went away
    try:
        response = await _stream(request, hop, start)
        status = response.status
        return response
    finally:
        in_flight.dec()
        seconds = time.perf_counter() - start
        metrics.requests.labels(hop.name, hop.service, str(status)).inc()
        metrics.duration.labels(hop.name, hop.service).observe(seconds)
        if "X-Penstock-No-Log" not in request.headers:
            text = hop.body.decode(errors="replace")[:_LONGEST_LOGGED_CHARS]
            hop.gateway.pending.append(
                Entry(time.time(), hop.name, hop.service, request.path, status, seconds, text)
            )


async def _stream(request: web.Request, hop: _Hop, start: float) -> web.StreamResponse:
    headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
    for url in hop.urls():
        try:
            # a request is sent again only if no replica can have seen it
            upstream = await hop.gateway.http.post(
                f"{url}{request.path}", data=hop.body, headers=headers
            )
            return await _answer(request, hop, upstream, start)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError):
            continue
        except TimeoutError:
            return _refusal(
                504, f"the replica was silent for {hop.gateway.silence_s:g} s", "silent"
            )
        except aiohttp.ClientError as problem:
            return _refusal(502, f"the replica broke off: {type(problem).__name__}", "broken")
    return _refusal(
        503, f"no replica of {hop.name!r} answers", "unavailable", **{"Retry-After": "1"}
    )


async def _answer(
    request: web.Request, hop: _Hop, upstream: aiohttp.ClientResponse, start: float
) -> web.StreamResponse:
    hop.gateway.metrics.first_byte.labels(hop.name, hop.service).observe(
        time.perf_counter() - start
    )
    headers = {k: v for k, v in upstream.headers.items() if k.lower() not in _HOP_BY_HOP}
    headers["X-Penstock-Version"] = hop.service
    try:
        if "Content-Length" in upstream.headers:
            body = await upstream.read()
            return web.Response(status=upstream.status, headers=headers, body=body)
        response = web.StreamResponse(status=upstream.status, headers=headers)
        await response.prepare(request)
        try:
            async for chunk in upstream.content.iter_any():
                await response.write(chunk)
        except (aiohttp.ClientPayloadError, TimeoutError):
            if request.transport is not None:  # too late for a status: the end must be missing
                request.transport.abort()
            return response
        await response.write_eof()
        return response
    finally:
        # an answer not read to its end: closing tells the replica that nobody waits
        if upstream.content.at_eof():
            upstream.release()
        else:
            upstream.close()


def run(folder: Path, port: int) -> int:
    """Serve on 127.0.0.1 until SIGTERM; returns at once if another process does it already."""
    import uvloop

    lock = hold(folder / "gateway.lock")
    if lock is None:
        return 0
    try:
        listener = socket.create_server(("127.0.0.1", port), backlog=1024)
    except OSError as problem:
        raise PortOccupied("127.0.0.1", port, option="PENSTOCK_GATEWAY_PORT") from problem
    with lock, listener, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(folder, listener))
    return 0


async def _serve(folder: Path, listener: socket.socket) -> None:
    log = RequestLog(folder / "requests.db")
    app = application(SqliteCluster(folder / "cluster.db"), log)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    # without handler_cancellation a client that leaves would keep its replica busy
    runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=30.0)
    await runner.setup()
    try:
        await web.SockSite(runner, listener).start()
        await stop.wait()
    finally:
        await runner.cleanup()


def main(arguments: list[str]) -> int:
    """Run from the command line: folder, port."""
    return run(Path(arguments[0]), int(arguments[1]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
