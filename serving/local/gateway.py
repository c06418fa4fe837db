"""The way in: OpenAI requests, split by weight over the versions of a model, streamed through.

The `model` of a request names the HTTPRoute. `X-Penstock-Version` of the answer says which version
answered. Requests with the same `X-Penstock-Session` go to the same version, as far as the weights
allow. A request with `X-Penstock-No-Log` is not logged; the others are, redacted. One with
`X-Penstock-Service` goes to that version whatever the weights; it is a replay, so it is neither
logged nor counted among the live ones.

`X-Penstock-Request` of an answer is its id. `POST /v1/scores` with `{"request": id, "metric":
"helpful", "score": 0.8}` scores it later, while the weights are still the same.
"""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import web

from penstock.core.errors import PortOccupied
from serving.headers import REQUEST, SERVICE, SESSION
from serving.local.forward import Forwarder, Hop, refusal, unavailable
from serving.local.objects import SqliteCluster
from serving.local.processes import hold
from serving.local.redact import redact_body
from serving.local.requestlog import Entry, RequestLog
from serving.local.routing import Table
from serving.local.scorebook import Scorebook, Sent, mistake
from serving.usermetrics import Outcome

_REFRESH_S = 0.1
_LOG_PERIOD_S = 0.5
_LONGEST_BODY_BYTES = 8 << 20
_LONGEST_SILENCE_S = 300.0


@dataclass
class Gateway:
    """State of the process."""

    cluster: SqliteCluster
    log: RequestLog
    forwarder: Forwarder
    table: Table = field(default_factory=Table)
    scores: Scorebook = field(default_factory=Scorebook)

    async def follow(self) -> None:
        """Take over changes of the objects."""
        seen = -1
        while True:
            version = await asyncio.to_thread(self.cluster.version)
            if version != seen:
                await asyncio.to_thread(self.read)
                seen = version
            await asyncio.sleep(_REFRESH_S)

    def read(self) -> None:
        """Read the objects."""
        self.table.update(self.cluster.list("HTTPRoute"), self.cluster.list("InferenceService"))

    async def write_log(self) -> None:
        """Write the request log in batches."""
        while True:
            await asyncio.sleep(_LOG_PERIOD_S)
            await self.flush()

    async def flush(self) -> None:
        """Write what is pending."""
        if self.forwarder.pending:
            entries, self.forwarder.pending = self.forwarder.pending, []
            await asyncio.to_thread(self._write, entries)

    def _write(self, entries: Sequence[Entry]) -> None:
        self.log.append([entry._replace(body=redact_body(entry.body)) for entry in entries])


GATEWAY = web.AppKey("gateway", Gateway)


def application(
    cluster: SqliteCluster, log: RequestLog, *, silence_s: float = _LONGEST_SILENCE_S
) -> web.Application:
    """Return the gateway over a cluster's objects; a replica silent for `silence_s` is a 504."""
    app = web.Application(client_max_size=_LONGEST_BODY_BYTES)
    app[GATEWAY] = Gateway(cluster, log, Forwarder(silence_s))
    app.cleanup_ctx.append(_background)
    app.router.add_get("/healthz", _healthz)
    app.router.add_get("/metrics", _metrics)
    app.router.add_get("/routes", _routes)
    app.router.add_get("/v1/models", _models)
    for path in ("/v1/chat/completions", "/v1/completions"):
        app.router.add_post(path, _forward)
    app.router.add_post("/v1/scores", _score)
    return app


async def _background(app: web.Application) -> AsyncIterator[None]:
    gateway = app[GATEWAY]
    gateway.read()
    gateway.forwarder.open()
    tasks = [asyncio.create_task(gateway.follow()), asyncio.create_task(gateway.write_log())]
    yield
    for task in tasks:
        task.cancel()
    await gateway.flush()
    await gateway.forwarder.http.close()


async def _healthz(_request: web.Request) -> web.Response:
    return web.Response(text="ok\n")


async def _metrics(request: web.Request) -> web.Response:
    metrics = request.app[GATEWAY].forwarder.metrics
    return web.Response(body=metrics.render(), headers={"Content-Type": metrics.content_type})


async def _routes(request: web.Request) -> web.Response:
    """The weights in force: what really routes, not what was asked for."""
    routes = request.app[GATEWAY].table.routes
    return web.json_response({name: route.split.weights for name, route in routes.items()})


async def _models(request: web.Request) -> web.Response:
    names = sorted(request.app[GATEWAY].table.routes)
    data = [{"id": name, "object": "model", "created": 0, "owned_by": "penstock"} for name in names]
    return web.json_response({"object": "list", "data": data})


async def _forward(request: web.Request) -> web.StreamResponse:
    gateway = request.app[GATEWAY]
    body = await request.read()
    try:
        name = json.loads(body)["model"]
    except (ValueError, KeyError, TypeError):
        return refusal(400, "the body must be a JSON object with a model", "invalid_body")
    route = gateway.table.routes.get(name) if isinstance(name, str) else None
    if route is None:
        known = ", ".join(sorted(gateway.table.routes)) or "none"
        message = f"no model {name!r} is served here; served: {known}"
        return refusal(404, message, "model_not_found")
    asked = request.headers.get(SERVICE)
    if asked is not None and not gateway.table.owns(name, asked):
        return refusal(404, f"{asked!r} is no version of {name!r}", "service_not_found")
    replay = asked is not None
    session = request.headers.get(SESSION)
    service = asked if replay else route.choose(name, session)
    drawn = not replay and gateway.table.drawn(name, session)
    endpoints = gateway.table.endpoints(service)
    if service is None or not endpoints:
        if not replay:
            outcome = Outcome(503, drawn=drawn)
            gateway.forwarder.metrics.took(name, service or "", outcome, 0.0)
        return unavailable(f"no replica of {service or name!r} is ready")
    sent = None if replay else Sent(name, service, route.split)
    hop = Hop(name, service, endpoints, body, drawn=drawn, sent=sent)
    if sent is not None:
        hop.headers[REQUEST] = gateway.scores.enter(sent)
    return await gateway.forwarder.exchange(request, hop)


async def _score(request: web.Request) -> web.Response:
    """Take a score that comes after the answer."""
    gateway = request.app[GATEWAY]
    try:
        body = json.loads(await request.read())
        key, metric, score = body["request"], body["metric"], body["score"]
    except (ValueError, KeyError, TypeError):
        return refusal(400, "the body must have request, metric and score", "invalid_body")
    if wrong := mistake(metric, score):
        return refusal(400, wrong, "invalid_score")
    sent = gateway.scores.find(key) if isinstance(key, str) else None
    if sent is None:
        message = f"no answer {key!r} is known: it was not given here, or too long ago"
        return refusal(404, message, "request_not_found")
    route = gateway.table.routes.get(sent.name)
    why_not = gateway.scores.claim(sent, metric, route.split if route else None)
    if not why_not:
        gateway.forwarder.metrics.scored((sent.name, sent.service, sent.half), metric, score)
    return web.json_response({"counted": not why_not, "reason": why_not})


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
