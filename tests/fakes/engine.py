"""An engine that answers at once: `run` as the real one's, without a model."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable
from pathlib import Path

from aiohttp import web

from penstock.core.errors import EngineRefused


def run(
    folder: Path, *, model_name: str, host: str, port: int, on_ready: Callable[[str], None]
) -> None:
    """Serve until SIGTERM; a folder named `broken` is refused."""
    if folder.name == "broken":
        raise EngineRefused(f"{folder}: cannot be run")
    with socket.create_server((host, port)) as listener:
        asyncio.run(_serve(listener, model_name, folder, on_ready))


async def _serve(
    listener: socket.socket, model_name: str, folder: Path, on_ready: Callable[[str], None]
) -> None:
    app = web.Application()

    async def health(_request: web.Request) -> web.Response:
        return web.Response()

    async def answer(request: web.Request) -> web.StreamResponse:
        body = await request.json()
        if not body.get("stream"):
            return web.json_response({"model": model_name, "from": folder.name})
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for piece in range(int(body.get("max_tokens", 3))):
            await response.write(f"data: {piece}\n\n".encode())
            await asyncio.sleep(0.02)
        await response.write(b"data: [DONE]\n\n")
        return response

    app.router.add_get("/health", health)
    app.router.add_post("/v1/chat/completions", answer)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    runner = web.AppRunner(app, shutdown_timeout=10)
    await runner.setup()
    await web.SockSite(runner, listener).start()
    host, port = listener.getsockname()[:2]
    on_ready(f"http://{host}:{port}")
    await stop.wait()
    await runner.cleanup()
