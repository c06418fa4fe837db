"""Receives MLflow's webhooks: reads the signature, and starts what wants the event."""

from __future__ import annotations

import asyncio
import socket
import sys
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence

import click
from aiohttp import web

from penstock.cli.schedule_places import cluster_place, local_place
from penstock.core.errors import ConfigurationError, PortOccupied
from pipelines.schedules.kept import Kept
from pipelines.schedules.triggers import DELIVERY, Event, Unsigned, asked, read

_MOST_BYTES = 1 << 20
_SEEN = 10_000
Fire = Callable[[str, str], None]


def watch(env: dict[str, str], host: str, port: int, *, local: bool) -> None:
    """Serve until interrupted.

    Args:
        env: With the secret; of what is started.
        host: Address to listen on.
        port: 0 takes a free one.
        local: Whether the schedules are this machine's.
    """
    secret = env.get("PENSTOCK_WEBHOOK_SECRET")
    if not secret:
        raise ConfigurationError(
            "PENSTOCK_WEBHOOK_SECRET is not set: anybody could start trainings",
            hint="the same text as the webhook's secret in MLflow",
        )
    try:
        listener = socket.create_server((host, port))
    except OSError as problem:
        raise PortOccupied(host, port, option="--port") from problem
    place = local_place(env) if local else cluster_place(env)
    app = application(secret, place.known, place.start)
    click.echo(f"webhooks of MLflow are taken at http://{host}:{listener.getsockname()[1]}/mlflow")
    sys.stdout.flush()
    with listener:
        web.run_app(app, sock=listener, print=lambda *_: None, access_log=None)


def application(secret: str, known: Callable[[], Sequence[Kept]], fire: Fire) -> web.Application:
    """Return the server.

    Args:
        secret: Shared with MLflow.
        known: Reads the schedules.
        fire: Starts one: its name, and why.
    """
    seen: OrderedDict[str, None] = OrderedDict()
    started: dict[str, float] = {}
    turn = asyncio.Lock()  # two events at once must not both find a schedule cooled down

    async def take(request: web.Request) -> web.Response:
        body, now = await request.read(), time.time()
        async with turn:
            try:
                event = read(request.headers, body, secret=secret, now=now, seen=seen)
            except Unsigned as problem:
                click.echo(f"refused: {problem}")
                return web.json_response({"error": str(problem)}, status=401)
            seen[request.headers[DELIVERY]] = None
            if len(seen) > _SEEN:
                seen.popitem(last=False)
            answers = await asyncio.to_thread(answer, event)
        return web.json_response({"event": str(event), "schedules": answers}, status=202)

    def answer(event: Event) -> list[dict[str, object]]:
        told = []
        now = time.time()
        for each in asked(event, known(), now, started):
            if each.fires:
                started[each.schedule] = now
                fire(each.schedule, each.why)
            click.echo(f"{each.schedule}: {'starts' if each.fires else 'left alone'}: {each.why}")
            told.append({"schedule": each.schedule, "starts": each.fires, "why": each.why})
        return told

    app = web.Application(client_max_size=_MOST_BYTES)
    app.router.add_post("/mlflow", take)
    app.router.add_get("/healthz", _fine)
    return app


async def _fine(_request: web.Request) -> web.Response:
    return web.Response(text="ok")
