"""An engine that answers at once: `run` as the real one's, without a model."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

from penstock.core.errors import EngineRefused
from serving.engine.faults import Fault

CHAT = "/v1/chat/completions"


def run(
    folder: Path,
    *,
    model_name: str,
    host: str,
    port: int,
    fault: str = "",
    on_ready: Callable[[str], None],
) -> None:
    """Serve until SIGTERM; a folder named `broken` is refused, and `fast…` streams at once."""
    if folder.name == "broken":
        raise EngineRefused(f"{folder}: cannot be run")
    pause_s = 0.0005 if folder.name.startswith("fast") else 0.02
    engine = FakeEngine(model_name, folder.name, fault=fault, pause_s=pause_s)
    with socket.create_server((host, port)) as listener:
        asyncio.run(_serve(listener, engine, on_ready))


@dataclass
class FakeEngine:
    """What it answers, and how."""

    model_name: str = "m"
    version: str = "one"
    fault: str = ""
    pause_s: float = 0.02
    """Between two pieces of a stream."""

    answers: Mapping[str, str] = field(default_factory=dict)
    """Last message → the answer, said word by word; others get `max_tokens` numbers."""

    status: int = 200
    breaks_off: bool = False
    """Whether a stream ends after its first piece, without its end."""

    errs_late: bool = False
    """Whether a stream ends in an error after its first piece."""

    seen: list[web.Request] = field(default_factory=list)

    def application(self) -> web.Application:
        """Return it as an aiohttp application."""
        faults = [Fault.parse(self.fault).middleware()] if self.fault else []
        app = web.Application(middlewares=faults)
        app.router.add_get("/health", _health)
        app.router.add_post(CHAT, self._answer)
        return app

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.seen.append(request)
        body = await request.json()
        if self.status != 200:
            return web.json_response({"error": {"message": "no"}}, status=self.status)
        if not body.get("stream"):
            return web.json_response({"model": self.model_name, "from": self.version})
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for piece in self._pieces(body):
            delta = {"choices": [{"index": 0, "delta": {"content": piece}}]}
            await response.write(f"data: {json.dumps(delta)}\n\n".encode())
            if self.breaks_off:
                assert request.transport is not None
                request.transport.abort()
                return response
            if self.errs_late:
                await response.write(b'data: {"error": {"message": "no"}}\n\n')
                return response
            await asyncio.sleep(self.pause_s)
        await response.write(b"data: [DONE]\n\n")
        return response

    def _pieces(self, body: dict[str, Any]) -> list[str]:
        asked = (body.get("messages") or [{}])[-1].get("content")
        if asked in self.answers:
            return [f"{word} " for word in self.answers[asked].split()]
        return [f"{number} " for number in range(int(body.get("max_tokens", 3)))]


async def _health(_request: web.Request) -> web.Response:
    return web.Response()


async def _serve(
    listener: socket.socket, engine: FakeEngine, on_ready: Callable[[str], None]
) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    runner = web.AppRunner(engine.application(), shutdown_timeout=10)
    await runner.setup()
    await web.SockSite(runner, listener).start()
    host, port = listener.getsockname()[:2]
    on_ready(f"http://{host}:{port}")
    await stop.wait()
    await runner.cleanup()
