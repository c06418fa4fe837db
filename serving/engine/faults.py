"""Fault injection: an engine that does badly on purpose, for demonstrations and tests.

`live-errors=0.2` answers a fifth of the requests with HTTP 500, evenly spread;
`live-delay=0.5` holds each back for half a second. Several are separated by commas. Replayed
requests are spared: so a version can look well in replay and fail its users,
as it happens with real versions.
"""

from __future__ import annotations

import asyncio
import logging
import math
from dataclasses import dataclass

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from penstock.core.errors import ConfigurationError
from serving.headers import replayed

_ALLOWED = "live-errors=SHARE (0 to 1) and live-delay=SECONDS, separated by a comma"
_log = logging.getLogger("penstock.engine")


@dataclass(slots=True)
class Fault:
    """What goes wrong with requests that are not replayed."""

    live_errors: float = 0.0
    """Share that fails."""

    live_delay_s: float = 0.0
    asked: int = 0

    @classmethod
    def parse(cls, text: str) -> Fault:
        """Return the fault in words like `live-errors=0.2,live-delay=0.5`."""
        values = {"live-errors": 0.0, "live-delay": 0.0}
        for part in text.split(","):
            name, _, value = part.strip().partition("=")
            try:
                number = float(value)
            except ValueError:
                number = math.nan
            if name not in values or not 0 <= number < math.inf:
                raise ConfigurationError(f"--fault: found {part!r}; allowed: {_ALLOWED}")
            values[name] = number
        if values["live-errors"] > 1:
            raise ConfigurationError(f"--fault: found {text!r}; allowed: {_ALLOWED}")
        return cls(values["live-errors"], values["live-delay"])

    def strikes(self) -> bool:
        """Return whether the next request fails: evenly, so no luck is needed to see the share."""
        self.asked += 1
        return int(self.asked * self.live_errors) > int((self.asked - 1) * self.live_errors)

    def middleware(self) -> Middleware:
        """Return what puts the fault in the way of requests; says so in the log."""
        _log.warning(
            "FAULT INJECTION is on: %.0f %% of requests fail, each waits %g s; not for replays",
            self.live_errors * 100,
            self.live_delay_s,
        )

        @web.middleware
        async def inject(request: web.Request, handler: Handler) -> web.StreamResponse:
            if request.method != "POST" or replayed(request.headers):
                return await handler(request)
            await asyncio.sleep(self.live_delay_s)
            if self.strikes():
                error = {"message": "injected on purpose (--fault)", "type": "server_error"}
                body = {"error": {**error, "param": None, "code": "injected_fault"}}
                return web.json_response(body, status=500)
            return await handler(request)

        return inject
