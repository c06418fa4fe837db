"""Receives MLflow's webhooks and looks for drift, and starts what wants either."""

from __future__ import annotations

import asyncio
import socket
import sys
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path

import click
from aiohttp import web

from penstock.cli.edge import settings_of
from penstock.cli.schedule_drift import Drift
from penstock.cli.schedule_places import cluster_place, local_place
from penstock.cli.schedule_tick import folder_of
from penstock.core.errors import ConfigurationError, PortOccupied
from penstock.core.settings import Settings
from pipelines.schedules.drift import LOOK_S
from pipelines.schedules.kept import Kept
from pipelines.schedules.memory import recall
from pipelines.schedules.triggers import DELIVERY, Asked, Event, Unsigned, asked, may_start, read

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
    settings = settings_of(env)
    path = folder_of(settings) / "watch" / ("local.json" if local else "cluster.json")
    app = application(secret, place.known, place.start, settings, path)
    click.echo(f"webhooks of MLflow are taken at http://{host}:{listener.getsockname()[1]}/mlflow")
    sys.stdout.flush()
    with listener:
        web.run_app(app, sock=listener, print=lambda *_: None, access_log=None)


def application(
    secret: str,
    known: Callable[[], Sequence[Kept]],
    fire: Fire,
    settings: Settings,
    path: Path,
    look_s: float = LOOK_S,
) -> web.Application:
    """Return the server.

    Args:
        secret: Shared with MLflow.
        known: Reads the schedules.
        fire: Starts one: its name, and why.
        settings: Where champions are served.
        path: Where is kept what is known of them, and when triggers started what.
        look_s: Time between two looks, in seconds.
    """
    receiver = _Receiver(secret, known, fire, settings, path)

    async def looking(_app: web.Application) -> AsyncIterator[None]:
        task = asyncio.create_task(receiver.look_again(look_s))
        yield
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    app = web.Application(client_max_size=_MOST_BYTES)
    app.cleanup_ctx.append(looking)
    app.router.add_post("/mlflow", receiver.take)
    app.router.add_get("/healthz", _fine)
    return app


class _Receiver:
    """Starts schedules for events and for drift, one thing at a time."""

    def __init__(
        self,
        secret: str,
        known: Callable[[], Sequence[Kept]],
        fire: Fire,
        settings: Settings,
        path: Path,
    ) -> None:
        self._secret, self._known, self._fire, self._path = secret, known, fire, path
        self._memory = recall(path)
        self._drift = Drift(settings, click.echo, self._memory)
        self._seen: OrderedDict[str, None] = OrderedDict()
        self._turn = asyncio.Lock()  # two at once must not both find a schedule cooled down

    async def take(self, request: web.Request) -> web.Response:
        """Answer a webhook."""
        body, now = await request.read(), time.time()
        async with self._turn:
            try:
                event = read(request.headers, body, secret=self._secret, now=now, seen=self._seen)
            except Unsigned as problem:
                click.echo(f"refused: {problem}")
                return web.json_response({"error": str(problem)}, status=401)
            self._seen[request.headers[DELIVERY]] = None
            if len(self._seen) > _SEEN:
                self._seen.popitem(last=False)
            answers = await asyncio.to_thread(self._answer, event)
        return web.json_response({"event": str(event), "schedules": answers}, status=202)

    async def look_again(self, look_s: float) -> None:
        """Look for drift, again and again."""
        while True:
            async with self._turn:
                try:
                    await asyncio.to_thread(self._look)
                except Exception as problem:  # noqa: BLE001 - webhooks are taken all the same
                    click.echo(f"no look for drift: {type(problem).__name__}: {problem}")
            await asyncio.sleep(look_s)

    def _look(self) -> None:
        for kept, why in self._drift.look(self._known()):
            self._start([may_start(kept, time.time(), self._memory.started, why)])
        self._memory.keep(self._path)

    def _answer(self, event: Event) -> list[dict[str, object]]:
        return self._start(asked(event, self._known(), time.time(), self._memory.started))

    def _start(self, found: Iterable[Asked]) -> list[dict[str, object]]:
        told = []
        for each in found:
            if each.fires:
                self._memory.started[each.schedule] = time.time()
                self._memory.keep(self._path)
                self._fire(each.schedule, each.why)
            click.echo(f"{each.schedule}: {'starts' if each.fires else 'left alone'}: {each.why}")
            told.append({"schedule": each.schedule, "starts": each.fires, "why": each.why})
        return told


async def _fine(_request: web.Request) -> web.Response:
    return web.Response(text="ok")
