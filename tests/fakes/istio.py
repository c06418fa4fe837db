"""A gateway that obeys one VirtualService, as far as Penstock writes them. Istio itself is faked.

The first rule whose match fits decides, header names in matches are lower-case, destinations get
their share of the weights (https://istio.io/latest/docs/reference/config/networking/virtual-service/).
"""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import aiohttp
from aiohttp import web

from serving.cluster import Object

_LOOK_S = 0.1
_OWN = ("host", "content-length", "transfer-encoding", "connection")


def answered(obj: Object, headers: Mapping[str, str]) -> tuple[dict[str, int], dict[str, str]]:
    """Return who gets which share of a request, and what is set on its answer.

    Args:
        obj: The VirtualService.
        headers: Of the request.
    """
    asked = {name.lower(): value for name, value in headers.items()}
    for rule in obj["spec"]["http"]:
        if any(_fits(match, asked) for match in rule.get("match", [{}])):
            to = {
                each["destination"]["host"].partition(".")[0]: each.get("weight", 100)
                for each in rule["route"]
            }
            return to, rule.get("headers", {}).get("response", {}).get("set", {})
    raise AssertionError("no rule fits")


def _fits(match: Any, asked: Mapping[str, str]) -> bool:
    wanted = match.get("headers", {})
    assert all(name == name.lower() for name in wanted)
    return all(asked.get(name) == how["exact"] for name, how in wanted.items())


@contextmanager
def gateway(read: Callable[[], Object | None], address: Callable[[str], str]) -> Iterator[str]:
    """Route requests until the block ends; yields the URL.

    Args:
        read: Returns the VirtualService, or None; asked ten times a second.
        address: Returns where a Service is, HOST:PORT.
    """
    loop, started = asyncio.new_event_loop(), threading.Event()
    state: dict[str, Any] = {}
    end = asyncio.Event()

    async def follow() -> None:
        while True:
            state["obj"] = await asyncio.to_thread(read)
            await asyncio.sleep(_LOOK_S)

    async def forward(request: web.Request) -> web.StreamResponse:
        if state.get("obj") is None:
            return web.Response(status=404)
        to, marks = answered(state["obj"], request.headers)
        service = random.choices(list(to), list(to.values()))[0]
        where = await asyncio.to_thread(address, service)
        headers = {k: v for k, v in request.headers.items() if k.lower() not in _OWN}
        async with state["client"].request(
            request.method, f"http://{where}{request.rel_url}", headers=headers,
            data=await request.read(),
        ) as answer:  # fmt: skip
            kept = {k: v for k, v in answer.headers.items() if k.lower() not in _OWN}
            response = web.StreamResponse(status=answer.status, headers={**kept, **marks})
            await response.prepare(request)
            async for chunk in answer.content.iter_any():
                await response.write(chunk)
            return response

    async def serve() -> None:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", forward)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        async with aiohttp.ClientSession() as state["client"]:
            following = asyncio.create_task(follow())
            state["port"] = runner.addresses[0][1]
            started.set()
            await end.wait()
            following.cancel()
        await runner.cleanup()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    try:
        assert started.wait(10)
        yield f"http://127.0.0.1:{state['port']}"
    finally:
        loop.call_soon_threadsafe(end.set)
        thread.join(30)
        loop.close()
