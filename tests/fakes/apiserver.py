"""An API server for what a real one does too seldom: refuse, break off, hesitate, forget.

The contract suite runs on it and on a real kube-apiserver, which keeps it honest.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

from serving.kube import KubernetesCluster, connect
from serving.kube.kinds import RESOURCES
from serving.kube.patience import Patience
from tests.fakes.apistore import Failure, Store, Where

USER = "system:serviceaccount:models:limited"
_VERBS = {"POST": "create", "PUT": "update", "DELETE": "delete", "GET": "get"}


@dataclass
class Fault:
    """What happens to requests instead of an answer."""

    method: str = ""
    """Which requests; all without one."""

    path: str = ""
    """A part of the path, or of the query."""

    times: int = 1
    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    message: str = ""
    drop: bool = False
    slow_s: float = 0.0
    executed: bool = False
    """Whether the request is executed before it fails."""
    meanwhile: Callable[[], object] = lambda: None
    """What somebody else does at that moment."""

    def meets(self, request: web.Request) -> bool:
        return (
            self.times > 0
            and request.method.startswith(self.method)
            and (self.path in request.path_qs)
        )


class ApiServer:
    """The server, and what tests change of it."""

    def __init__(self, folder: Path) -> None:
        self.store = Store()
        self.url = ""
        self.token = "valid"
        self.faults: list[Fault] = []
        self.denied: set[tuple[str, str]] = set()
        """Pairs of verb and plural that RBAC forbids."""
        self.unserved: set[str] = set()
        """Plurals whose CRD is missing."""
        self.requests: list[str] = []
        """Method, path and query of what came in."""
        self._folder, self._loop = folder, asyncio.new_event_loop()
        self._watches: list[web.Request] = []

    def kubeconfig(self, **user: Any) -> Path:
        """Write a kubeconfig that leads here."""
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "c", "cluster": {"server": self.url}}],
            "users": [{"name": "u", "user": user or {"token": self.token}}],
            "contexts": [
                {"name": "x", "context": {"cluster": "c", "user": "u", "namespace": "models"}}
            ],
            "current-context": "x",
        }
        path = self._folder / "kubeconfig"
        path.write_text(json.dumps(config))
        return path

    def cluster(self, patience: Patience | None = None) -> KubernetesCluster:
        """Return the adapter over this server."""
        return connect(kubeconfig=str(self.kubeconfig()), patience=patience)

    def break_watches(self) -> None:
        """Break off every watch, as a network does."""
        asyncio.run_coroutine_threadsafe(self._break(), self._loop).result(10)

    @contextmanager
    def running(self) -> Iterator[ApiServer]:
        """Serve in a thread."""
        listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._handle)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)

        async def start() -> None:
            await runner.setup()
            await web.SockSite(runner, listener).start()

        self._loop.run_until_complete(start())
        thread = threading.Thread(target=self._loop.run_forever)
        thread.start()
        try:
            yield self
        finally:
            self.break_watches()
            asyncio.run_coroutine_threadsafe(runner.cleanup(), self._loop).result(10)
            self._loop.call_soon_threadsafe(self._loop.stop)
            thread.join(10)
            self._loop.close()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(f"{request.method} {request.path_qs}")
        body = await request.read()
        fault = next((f for f in self.faults if f.meets(request)), None)
        if fault is None:
            return await self._answer(request, body)
        fault.times -= 1
        await asyncio.sleep(fault.slow_s)
        if fault.executed:
            await self._answer(request, body)
        fault.meanwhile()
        if not (fault.drop or fault.status):
            return await self._answer(request, body)
        if fault.drop:
            _reset(request)
        failed = Failure(fault.status or 500, "Injected", fault.message or "injected")
        return web.json_response(failed.status, status=failed.code, headers=fault.headers)

    async def _answer(self, request: web.Request, body: bytes) -> web.StreamResponse:
        try:
            if request.headers.get("Authorization") != f"Bearer {self.token}":
                raise Failure(401, "Unauthorized", "Unauthorized")
            if (
                request.path == "/version"
                or request.path.rpartition("/")[2] == "selfsubjectaccessreviews"
            ):
                return self._about_itself(request, body)
            where = self._where(request.path)
            if where is None:
                return self._discovery(request.path)
            return await self._object(request, where, json.loads(body) if body else {})
        except Failure as failure:
            return web.json_response(failure.status, status=failure.code)

    async def _object(self, request: web.Request, where: Where, body: Any) -> web.StreamResponse:
        query = request.query
        verb = _VERBS[request.method]
        if verb == "get" and not where.name:
            verb = "watch" if query.get("watch") else "list"
        self._allow(verb, where)
        if verb == "watch":
            return await self._watch(request, where)
        if where.subresource == "log":
            return web.Response(text=f"log of {where.name}, {query.get('tailLines')} lines\n")
        return web.json_response(self._done(verb, where, body, query))

    def _done(self, verb: str, where: Where, body: Any, query: Mapping[str, str]) -> Any:
        match verb:
            case "create":
                return self.store.create(where, body, query)
            case "update":
                return self.store.replace(where, body, query)
            case "delete":
                return self.store.delete(where, body)
            case "list":
                return self.store.list(where, query)
            case _:
                return self.store.get(where)

    async def _watch(self, request: web.Request, where: Where) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        self._watches.append(request)
        version, told = int(request.query["resourceVersion"]), 0
        ends = self._loop.time() + int(request.query["timeoutSeconds"])
        try:
            while self._loop.time() < ends and request in self._watches:
                for at, event in self.store.since(where, version):
                    version = at
                    line = json.dumps(event).encode() + b"\n"
                    await response.write(line[:7])  # lines come in pieces
                    await response.write(line[7:])
                    if event["type"] == "ERROR":
                        return response
                if told < self.store.version:  # far more often than the real one does
                    told = self.store.version
                    bookmark = {"type": "BOOKMARK", "object": _empty(told)}
                    await response.write(json.dumps(bookmark).encode() + b"\n")
                await asyncio.sleep(0.005)
        except ConnectionError:
            pass
        finally:
            if request in self._watches:
                self._watches.remove(request)
        return response

    def _where(self, path: str) -> Where | None:
        """Return what a path names; None if that is no object."""
        parts = path.strip("/").split("/")
        group, rest = ("", parts[2:]) if parts[0] == "api" else ("".join(parts[1:2]), parts[3:])
        namespace = ""
        if rest[:1] == ["namespaces"] and len(rest) > 2:
            namespace, rest = rest[1], rest[2:]
        known = {(r.group, r.plural) for r in RESOURCES.values()}
        if not rest or (group, rest[0]) not in known or rest[0] in self.unserved:
            return None
        return Where(group, rest[0], namespace, *rest[1:3])

    def _allow(self, verb: str, where: Where) -> None:
        plural = f"{where.plural}/{where.subresource}" if where.subresource else where.plural
        if (verb, plural) in self.denied:
            why = (
                f'is forbidden: User "{USER}" cannot {verb} resource "{plural}" in API group '
                f'"{where.group}" in the namespace "{where.namespace}"'
            )
            raise where.failure(403, "Forbidden", why)

    def _about_itself(self, request: web.Request, body: bytes) -> web.Response:
        if request.path == "/version":
            return web.json_response({"gitVersion": "v1.34.4"})
        review = json.loads(body)
        asked = review["spec"]["resourceAttributes"]
        allowed = (asked["verb"], asked["resource"]) not in self.denied
        return web.json_response({**review, "status": {"allowed": allowed}}, status=201)

    def _discovery(self, path: str) -> web.Response:
        """Answer what is served: versions of a group, or resources of a version."""
        root, *rest = path.strip("/").split("/")
        group, version = ("", rest) if root == "api" else (rest[0], rest[1:])
        if version:
            plurals = self._plurals(group, version[0])
            told: Mapping[str, Any] = {"resources": [{"name": plural} for plural in plurals]}
            known = bool(plurals) and len(version) == 1
        else:
            found = self._versions(group)
            named = [{"version": each} for each in found]
            told = {"versions": named if group else found, "preferredVersion": (named or [{}])[0]}
            known = bool(found)
        if not known:
            return web.Response(status=404, text="404 page not found\n")
        return web.json_response(told)

    def _versions(self, group: str) -> list[str]:
        served = (r for r in RESOURCES.values() if r.plural not in self.unserved)
        return sorted({r.version for r in served if r.group == group}, reverse=True)

    def _plurals(self, group: str, version: str) -> list[str]:
        served = (r for r in RESOURCES.values() if r.plural not in self.unserved)
        return [r.plural for r in served if (r.group, r.version) == (group, version)]

    async def _break(self) -> None:
        for request in self._watches:
            _reset(request)
        self._watches.clear()


def _empty(version: int) -> dict[str, Any]:
    return {"metadata": {"resourceVersion": str(version), "creationTimestamp": None}}


@contextmanager
def api_server(folder: Path) -> Iterator[ApiServer]:
    """Serve an empty API with the namespace `models`."""
    with ApiServer(folder).running() as server:
        yield server


def _reset(request: web.Request) -> None:
    """Break the connection off as a network does, not as a server that ends."""
    if request.transport is None:
        return
    raw = request.transport.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    request.transport.abort()
