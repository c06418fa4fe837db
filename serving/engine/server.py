"""The engine as a process: opens the checkpoint, listens, warms up, and drains when told to end."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from pathlib import Path

from aiohttp import web
from aiohttp.typedefs import Middleware

from penstock.core.errors import ConfigurationError, PortOccupied
from serving.engine.batcher import Limits
from serving.engine.faults import Fault
from serving.engine.loading import Loaded, load
from serving.engine.routes import ENGINE, Engine, add_routes, counted, refusals

DRAIN_GRACE_S = 20.0
"""How long requests in flight may take to finish after SIGTERM."""

DRAIN_POLL_S = 0.05
LARGEST_BODY_BYTES = 4 * 1024 * 1024


def application(
    loaded: Loaded, *, model_name: str, limits: Limits | None = None, fault: Fault | None = None
) -> web.Application:
    """Returns the server as an aiohttp application; `app[ENGINE].warm_up()` makes it ready.

    Serve it with `handler_cancellation=True`, so that a client's disappearance frees its place.
    With a `fault` it does badly on purpose.
    """
    middlewares: list[Middleware] = [counted, refusals, *([fault.middleware()] if fault else [])]
    app = web.Application(client_max_size=LARGEST_BODY_BYTES, middlewares=middlewares)
    app[ENGINE] = Engine(loaded, model_name, limits or Limits())
    app.cleanup_ctx.append(_generation_thread)
    add_routes(app)
    return app


async def _generation_thread(app: web.Application) -> AsyncIterator[None]:
    app[ENGINE].batcher.start()
    yield
    await app[ENGINE].batcher.stop()


def run(  # noqa: PLR0913 - what the command line has, and the warm parent passes by name
    folder: Path,
    *,
    model_name: str,
    host: str,
    port: int | None,
    unix_socket: Path | None = None,
    fault: str = "",
    on_ready: Callable[[str], None],
) -> None:
    """Serves the checkpoint until SIGTERM or SIGINT; requests in flight then finish.

    Args:
        folder: The checkpoint.
        model_name: The name clients ask for.
        host: The address to listen on.
        port: 0 takes a free one; None listens on `unix_socket` only.
        unix_socket: A path to listen on; a stale one is replaced.
        fault: What goes wrong on purpose, as `serving.engine.faults` reads it; nothing by default.
        on_ready: Called once with the base URL (or `unix:<path>`) when requests are answered.

    Raises:
        ConfigurationError: No such fault.
        PortOccupied: Before the checkpoint is read.
        EngineRefused: The checkpoint cannot be run correctly here.
    """
    import uvloop

    injected = Fault.parse(fault) if fault else None
    listener = _listen(host, port, unix_socket)
    with closing(listener), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        app = application(load(folder), model_name=model_name, fault=injected)
        runner.run(_serve(app, listener, on_ready))


def _listen(host: str, port: int | None, unix_socket: Path | None) -> socket.socket:
    if port is None:
        if unix_socket is None:
            raise ConfigurationError("neither a port nor a socket to listen on")
        return _listen_unix(unix_socket)
    try:
        return socket.create_server((host, port), backlog=256)
    except OSError as error:
        raise PortOccupied(host, port, option="--port") from error


def _listen_unix(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if path.is_socket():
            if listener.connect_ex(str(path)) == 0:
                raise ConfigurationError(
                    f"{path} is in use by another process", hint="choose another with --socket"
                )
            path.unlink()
        listener.bind(str(path))
        listener.listen(256)
    except BaseException:
        listener.close()
        raise
    return listener


async def _serve(
    app: web.Application, listener: socket.socket, on_ready: Callable[[str], None]
) -> None:
    engine = app[ENGINE]
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        site = web.SockSite(runner, listener)
        await site.start()
        await engine.warm_up()
        on_ready(_url(listener))
        await stop.wait()
        await _drain(engine)
        await site.stop()
    finally:
        await runner.cleanup()


async def _drain(engine: Engine) -> None:
    """Answers new requests with 503, and waits for those in flight, up to the grace period."""
    engine.draining = True
    try:
        async with asyncio.timeout(DRAIN_GRACE_S):
            while engine.batcher.in_flight:
                await asyncio.sleep(DRAIN_POLL_S)
    except TimeoutError:
        return


def _url(listener: socket.socket) -> str:
    if listener.family == socket.AF_UNIX:
        return f"unix:{listener.getsockname()}"
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
