"""The real mirror over a network that breaks off, or changes what it carries."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

from aiohttp import web

from registry.mirror import application
from tests.fakes.serving import serving

Fault = Literal["", "cut", "altered", "whole"]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Network:
    """What happens to downloads of weights, and the ranges that were asked for."""

    fault: Fault = ""

    def __init__(self) -> None:
        self.ranges: list[str] = []
        self.sent = 0
        """Bytes, with the fault `whole`."""


@contextmanager
def hub(root: Path, network: Network) -> Iterator[str]:
    """Serve a folder of repositories; yields the URL."""
    with serving(_application(root, network)) as url:
        yield url


def _application(root: Path, network: Network) -> web.Application:
    app = application(root)

    @web.middleware
    async def faults(request: web.Request, handler: Handler) -> web.StreamResponse:
        weights = request.method == "GET" and request.path.endswith(".safetensors")
        if weights:
            network.ranges.append(request.headers.get("Range", ""))
        if not weights or not network.fault:
            return await handler(request)
        if network.fault == "whole":  # as proxies that know no ranges
            return await _whole(request, network)
        content = (root / "acme/large" / request.match_info["path"]).read_bytes()
        response = web.StreamResponse()
        response.content_length = len(content)
        await response.prepare(request)
        if network.fault == "altered":
            await response.write(content[:-1] + bytes([content[-1] ^ 1]))
        else:
            await response.write(content[: len(content) * 3 // 4])
            await asyncio.sleep(0.5)  # what the client has not read yet is lost with the connection
            _reset(request)
        return response

    app.middlewares.append(faults)
    return app


async def _whole(request: web.Request, network: Network) -> web.StreamResponse:
    """Send a gigabyte, whatever part of it was asked for, until nobody listens."""
    response = web.StreamResponse()
    response.content_length = 1 << 30
    await response.prepare(request)
    with suppress(ConnectionError):
        while network.sent < response.content_length:
            await response.write(bytes(1 << 16))
            network.sent += 1 << 16
    return response


def _reset(request: web.Request) -> None:
    """Break the connection off as a network does, not as a server that ends."""
    assert request.transport is not None
    raw = request.transport.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    request.transport.abort()
