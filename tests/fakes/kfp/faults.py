"""What happens to requests instead of an answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from aiohttp import web

Kind = Literal["status", "drop", "hang", "truncate", "page"]


@dataclass
class Fault:
    """One way to fail, for the next requests that meet it."""

    kind: Kind = "status"
    """status: an error; drop: the connection is reset; hang: no answer until the client leaves;
    truncate: half an answer; page: a login page of a proxy."""

    method: str = ""
    """Which requests; all without one."""

    path: str = ""
    """A part of the path, or of the query."""

    times: int = 1
    status: int = 503
    headers: Mapping[str, str] = field(default_factory=dict)
    executed: bool = False
    """Whether the request is executed before it fails."""

    slow_s: float = 0.0
    """Before anything happens."""

    late_after: int = 0
    """It is executed all the same, right before the request so many later; 0: never."""

    meanwhile: Callable[[], object] = lambda: None
    """What somebody else does at that moment."""

    def meets(self, request: web.Request) -> bool:
        return (
            self.times > 0
            and request.method.startswith(self.method)
            and self.path in request.path_qs
        )
