"""Carries one request to a replica and its answer back, and tells what became of it.

A request is sent a second time only when no replica can have seen it. An answer that broke off
never looks complete, and a client that left is not held against the version.
"""

from __future__ import annotations

import itertools
import time
from collections import defaultdict
from dataclasses import dataclass, field

import aiohttp
from aiohttp import web

from serving.headers import NO_LOG, REPLAY, VERSION
from serving.local.metrics import Metrics
from serving.local.requestlog import Entry
from serving.local.scorebook import Sent
from serving.sse import StreamClock
from serving.usermetrics import Outcome

_LONGEST_LOGGED_CHARS = 65_536
_HOP_BY_HOP = {"connection", "transfer-encoding", "content-length", "keep-alive", "date", "server"}
_HEADERS = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
_REPLAY_HEADERS = {**_HEADERS, REPLAY: "1"}


@dataclass(frozen=True, slots=True)
class Hop:
    """One request on its way."""

    name: str
    service: str
    endpoints: tuple[str, ...]
    body: bytes
    drawn: bool = True
    """Whether the split chose the version for it."""

    sent: Sent | None = None
    """Where it can be scored; None for a replay, which is neither counted nor logged."""

    headers: dict[str, str] = field(default_factory=dict)
    """Of the answer, beside its own."""

    @property
    def replay(self) -> bool:
        """Whether it is no user's."""
        return self.sent is None

    def replicas(self, turn: int) -> list[tuple[str, str]]:
        """Return half and URL of the replicas, each turn starting at another one."""
        whole = len(self.endpoints) // 2
        halves = ["a"] * whole + ["b"] * whole + [""]  # one too many is in neither
        known = list(zip(halves, self.endpoints, strict=False))
        start = turn % len(known)
        return [*known[start:], *known[:start]]


@dataclass
class Forwarder:
    """Sends requests; `http` is opened by `open` inside the event loop."""

    silence_s: float
    """A replica that sends no byte for this long is given up."""

    metrics: Metrics = field(default_factory=Metrics)
    pending: list[Entry] = field(default_factory=list)
    """What the request log has yet to write."""

    turns: defaultdict[str, itertools.count[int]] = field(
        default_factory=lambda: defaultdict(itertools.count)
    )
    """InferenceService → its next replica: one count for all would follow the split's own turns."""

    http: aiohttp.ClientSession = field(init=False)

    def open(self) -> None:
        """Make ready to send."""
        self.http = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, use_dns_cache=True),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=self.silence_s),
            auto_decompress=False,
        )

    async def exchange(self, request: web.Request, hop: Hop) -> web.StreamResponse:
        """Return the answer of one of the replicas, or why there is none."""
        start, outcome = time.perf_counter(), Outcome(drawn=hop.drawn)
        in_flight = self.metrics.in_flight.labels(hop.name, hop.service)
        if not hop.replay:
            in_flight.inc()
        try:
            return await self._answer(request, hop, start, outcome)
        finally:
            if hop.replay:
                self.metrics.replays.labels(hop.name, hop.service, str(outcome.status)).inc()
            else:
                in_flight.dec()
                seconds = time.perf_counter() - start
                self.metrics.took(hop.name, hop.service, outcome, seconds)
                self._log(request, hop, outcome.status, seconds)

    def _log(self, request: web.Request, hop: Hop, status: int, seconds: float) -> None:
        if NO_LOG not in request.headers:
            text = hop.body.decode(errors="replace")[:_LONGEST_LOGGED_CHARS]
            self.pending.append(
                Entry(time.time(), hop.name, hop.service, request.path, status, seconds, text)
            )

    async def _answer(
        self, request: web.Request, hop: Hop, start: float, outcome: Outcome
    ) -> web.StreamResponse:
        try:
            upstream = await self._open(request.path, hop, outcome)
            if upstream is None:
                response = unavailable(f"no replica of {hop.name!r} answers")
            else:
                outcome.head_s = time.perf_counter() - start
                return await _Relay(request, upstream, outcome).run(hop, start)
        except TimeoutError:
            response = refusal(504, f"the replica was silent for {self.silence_s:g} s", "silent")
        except aiohttp.ClientError as problem:
            response = refusal(502, f"the replica broke off: {type(problem).__name__}", "broken")
        outcome.status = response.status
        return response

    async def _open(self, path: str, hop: Hop, outcome: Outcome) -> aiohttp.ClientResponse | None:
        """Return the head of an answer; None if no replica can have seen the request."""
        headers = _REPLAY_HEADERS if hop.replay else _HEADERS
        for half, url in hop.replicas(next(self.turns[hop.service])):
            outcome.half = half
            if hop.sent is not None:
                hop.sent.half = half
            try:
                return await self.http.post(f"{url}{path}", data=hop.body, headers=headers)
            except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError):
                continue
        return None


@dataclass(frozen=True, slots=True)
class _Relay:
    """One answer on its way back; what became of it is written into `outcome`."""

    request: web.Request
    upstream: aiohttp.ClientResponse
    outcome: Outcome

    async def run(self, hop: Hop, start: float) -> web.StreamResponse:
        """Pass the answer on, as it comes."""
        headers = {k: v for k, v in self.upstream.headers.items() if k.lower() not in _HOP_BY_HOP}
        headers |= {VERSION: hop.service, **hop.headers}
        try:
            if "Content-Length" not in self.upstream.headers:
                return await self._stream(headers, StreamClock(start))
            body = await self.upstream.read()
            self.outcome.status = self.upstream.status
            return web.Response(status=self.upstream.status, headers=headers, body=body)
        finally:
            # an answer not read to its end: closing tells the replica that nobody waits
            if self.upstream.content.at_eof():
                self.upstream.release()
            else:
                self.upstream.close()

    async def _stream(self, headers: dict[str, str], clock: StreamClock) -> web.StreamResponse:
        response = web.StreamResponse(status=self.upstream.status, headers=headers)
        try:
            await response.prepare(self.request)
            complete = await self._pass_on(response, clock)
            if complete:
                await response.write_eof()
            elif self.request.transport is not None:
                self.request.transport.abort()  # too late for a status: the end must be missing
            self.outcome.status, self.outcome.broken = self.upstream.status, not complete
        except ConnectionResetError:
            return response  # the client left; aiohttp calls this a client error, as it does ours
        finally:
            self.outcome.ttft_s, self.outcome.tpot_s = clock.ttft_s, clock.tpot_s
            self.outcome.broken |= clock.failed
        return response

    async def _pass_on(self, response: web.StreamResponse, clock: StreamClock) -> bool:
        """Return whether the answer came to its end; raises only what the client's side raises."""
        timed = self.upstream.content_type == "text/event-stream"
        while True:
            try:
                chunk = await self.upstream.content.readany()
            except (aiohttp.ClientError, TimeoutError):
                return False
            if not chunk:
                return True
            if timed:
                clock.feed(chunk, time.perf_counter())
            await response.write(chunk)


def refusal(status: int, message: str, code: str, **headers: str) -> web.Response:
    """Return an error in OpenAI's shape."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    body = {"error": {"message": message, "type": kind, "param": None, "code": code}}
    return web.json_response(body, status=status, headers=headers)


def unavailable(message: str) -> web.Response:
    """Return the refusal of a request that no replica takes now."""
    return refusal(503, message, "unavailable", **{"Retry-After": "1"})
