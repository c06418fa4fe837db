"""The server: routes, who may ask, and faults instead of answers."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from aiohttp import web

from tests.fakes.kfp.clock import Clock
from tests.fakes.kfp.failure import Failure
from tests.fakes.kfp.faults import Fault
from tests.fakes.kfp.routes import Access, answer
from tests.fakes.kfp.rows import RunRow
from tests.fakes.kfp.schedules import Schedules
from tests.fakes.kfp.store import Store

T = TypeVar("T")
LOGIN = "<!doctype html><html><title>Log in</title><form>password</form></html>"


@dataclass
class _Late:
    """A request whose client has gone, and which is executed later."""

    left: int
    request: web.Request
    body: bytes


class Double:
    """The server, and what tests change of it."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.store = Store(self.clock)
        self.schedules = Schedules(self.store)
        self.access = Access()
        self.url = ""
        self.faults: list[Fault] = []
        self.alive = False
        self.requests: list[str] = []
        """Method, path and query of what came in."""
        self._loop = asyncio.new_event_loop()
        self._stopped = asyncio.Event()
        self._late: list[_Late] = []

    def do(self, change: Callable[[], T]) -> T:
        """Return what a change returns, made between two requests."""

        async def run() -> T:
            return change()

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(10)

    def advance(self, seconds: float) -> None:
        """Let time pass: schedules fire."""
        self.do(lambda: self.schedules.advance(seconds))

    def live(self, name: str) -> list[RunRow]:
        """Return the runs of a name that nobody canceled."""
        return self.do(
            lambda: [
                run
                for run in self.store.runs
                if run.body["display_name"] == name and run.state not in ("CANCELING", "CANCELED")
            ]
        )

    @contextmanager
    def running(self, tls: ssl.SSLContext | None = None) -> Iterator[Double]:
        """Serve in a thread."""
        listener = socket.create_server(("127.0.0.1", 0))
        scheme = "http" if tls is None else "https"
        self.url = f"{scheme}://127.0.0.1:{listener.getsockname()[1]}"
        app = web.Application(client_max_size=64 << 20)
        app.router.add_route("*", "/{path:.*}", self._handle)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)

        async def start() -> None:
            await runner.setup()
            await web.SockSite(runner, listener, ssl_context=tls).start()

        async def stop() -> None:
            self._stopped.set()
            await runner.cleanup()

        self._loop.run_until_complete(start())
        thread = threading.Thread(target=self._loop.run_forever)
        thread.start()
        self.alive = True
        try:
            yield self
        finally:
            self.alive = False
            asyncio.run_coroutine_threadsafe(stop(), self._loop).result(10)
            self._loop.call_soon_threadsafe(self._loop.stop)
            thread.join(10)
            self._loop.close()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(f"{request.method} {request.path_qs}")
        body = await request.read()
        await self._catch_up()
        fault = next((f for f in self.faults if f.meets(request)), None)
        if fault is None:
            return await self._answer(request, body)
        fault.times -= 1
        await asyncio.sleep(fault.slow_s)
        if fault.executed:
            await self._answer(request, body)
        if fault.late_after:
            self._late.append(_Late(fault.late_after, request, body))
        fault.meanwhile()
        return await self._fail(request, body, fault)

    async def _catch_up(self) -> None:
        """Execute what was held back, and is due."""
        for late in self._late:
            late.left -= 1
        due = [late for late in self._late if late.left <= 0]
        self._late = [late for late in self._late if late.left > 0]
        for late in due:
            await self._answer(late.request, late.body)

    async def _fail(self, request: web.Request, body: bytes, fault: Fault) -> web.StreamResponse:
        match fault.kind:
            case "status":
                failed = Failure(fault.status, f"injected {fault.status}")
                return web.json_response(
                    failed.body, status=failed.status, headers=dict(fault.headers)
                )
            case "page":
                return web.Response(text=LOGIN, content_type="text/html")
            case "hang":
                await self._stopped.wait()
            case "truncate":
                whole = web.StreamResponse(headers={"Content-Length": "4000"})
                whole.content_type = "application/json"
                await whole.prepare(request)
                await whole.write(b'{"run_id": "')
            case "drop":
                pass
        _reset(request)
        return web.Response()

    async def _answer(self, request: web.Request, body: bytes) -> web.StreamResponse:
        try:
            found = await answer(self.store, self.schedules, self.access, request, body)
        except Failure as problem:
            return web.json_response(problem.body, status=problem.status)
        if isinstance(found, web.Response):
            return found
        return web.Response(text=json.dumps(found), content_type="application/json")


def _reset(request: web.Request) -> None:
    """Close the connection as a process that dies does: with a reset."""
    transport = request.transport
    if transport is None:
        return
    sock: Any = transport.get_extra_info("socket")
    if sock is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


@contextmanager
def kfp_server(tls: ssl.SSLContext | None = None) -> Iterator[Double]:
    """Yield a server that runs."""
    with Double().running(tls) as double:
        yield double
