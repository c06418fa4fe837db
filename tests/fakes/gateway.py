"""The real gateway in a thread, over fake engines."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from aiohttp.test_utils import TestServer

from serving.local.gateway import application
from serving.local.objects import SqliteCluster
from serving.local.requestlog import RequestLog
from serving.manifests import NAME, route
from tests.fakes.engine import FakeEngine


@contextmanager
def cluster_of(
    folder: Path, engines: Mapping[str, FakeEngine | None], weights: Mapping[str, int]
) -> Iterator[str]:
    """Serve engines behind the real gateway, in a thread; yields its URL.

    Args:
        folder: For objects and request log.
        engines: InferenceService to engine; None for one without a replica.
        weights: Of the route `m`.
    """
    loop = asyncio.new_event_loop()
    servers = {name: TestServer(e.application()) for name, e in engines.items() if e}
    cluster = SqliteCluster(folder / "cluster.db")
    gateway = TestServer(application(cluster, RequestLog(folder / "requests.db")))

    async def start() -> str:
        for name in engines:
            if name in servers:
                await servers[name].start_server()
            urls = [str(servers[name].make_url("")).rstrip("/")] if name in servers else []
            made = cluster.create(
                {
                    "kind": "InferenceService",
                    "metadata": {"name": name, "labels": {NAME: "m"}},
                    "spec": {},
                }
            )
            cluster.replace_status({**made, "status": {"endpoints": urls}})
        cluster.create(route("m", weights))
        await gateway.start_server()
        return str(gateway.make_url("")).rstrip("/")

    async def stop() -> None:
        for server in (gateway, *servers.values()):
            await server.close()

    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield asyncio.run_coroutine_threadsafe(start(), loop).result(10)
    finally:
        asyncio.run_coroutine_threadsafe(stop(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()
