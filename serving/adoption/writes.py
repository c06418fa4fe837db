"""One write of a plan, and what must be seen before the next."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from serving.cluster import Object

Verb = Literal["create", "replace", "delete", "see"]


@dataclass(frozen=True, slots=True)
class Write:
    """What is written, and why."""

    verb: Verb
    """`see`: it is as it should be; only what follows it has to be waited for."""

    obj: Object
    why: str
    routed: bool = False
    """The gateway must have accepted it before anything else is written."""

    def __str__(self) -> str:
        then = ", and wait until the gateway has accepted it" if self.routed else ""
        return f"{self.verb} {self.obj['kind']} {self.obj['metadata']['name']}: {self.why}{then}"


def lines(writes: Iterable[Write]) -> Iterator[str]:
    """Yield a plan for people."""
    for number, write in enumerate(writes, 1):
        yield f"{number}. {write}"
