"""One question to one version, and what became of it."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass

import aiohttp

from penstock.core.errors import NotReady, ServingError
from serving.completer import Message
from serving.doors import Doors
from serving.sse import StreamClock, data_of

_UNREACHED = {502, 503, 504}


@dataclass(frozen=True, slots=True)
class Answer:
    """What one version said."""

    text: str = ""
    failed: bool = False
    """Whether it gave no answer: refused, broke off, or did not come."""

    reached: bool = True
    """Whether a replica answered at all, well or badly."""

    broken: bool = False
    """Whether the answer began, and its end is missing."""

    ttft_s: float | None = None
    tpot_s: float | None = None
    """None where it is undefined, as for an answer that failed."""

    @property
    def lost(self) -> bool:
        """Whether no replica answered, or one went away while it did."""
        return self.broken or not self.reached


_UNREACHABLE = Answer(failed=True, reached=False)
_FAILED = Answer(failed=True)
_BROKEN = Answer(failed=True, broken=True)


@dataclass(frozen=True, slots=True)
class Asker:
    """Asks versions of one model."""

    http: aiohttp.ClientSession
    doors: Doors
    name: str
    max_new_tokens: int

    async def ask(self, service: str, messages: Sequence[Message]) -> Answer:
        """Return a version's greedy answer.

        Raises:
            NotReady: It is not the version that does not answer, but the way to it.
            ServingError: There is no such version.
        """
        body = {
            "model": self.name,
            "messages": list(messages),
            "max_tokens": self.max_new_tokens,
            "temperature": 0,
            "stream": True,
        }
        door = self.doors.version(service)
        clock = StreamClock(time.perf_counter())
        try:
            async with self.http.post(
                f"{door.url}/v1/chat/completions", json=body, headers=door.headers
            ) as response:
                if response.status == 404:
                    raise ServingError(
                        f"{service}: {(await response.text())[:200]}",
                        hint="deploy it, then compare it",
                    )
                if response.status != 200:
                    return _UNREACHABLE if response.status in _UNREACHED else _FAILED
                return await _read(response, clock)
        except TimeoutError:
            return _UNREACHABLE
        except aiohttp.ClientError as problem:
            raise self._down(problem) from problem

    async def check(self) -> None:
        """Raise `NotReady` if the way to the versions is closed."""
        door = self.doors.alive()
        try:
            async with self.http.get(door.url, headers=door.headers) as response:
                response.raise_for_status()
        except (aiohttp.ClientError, TimeoutError) as problem:
            raise self._down(problem) from problem

    def _down(self, problem: Exception) -> NotReady:
        return NotReady(
            self.doors.alive().url,
            reason=f"{type(problem).__name__}: {problem}",
            waited_s=0,
            hint=self.doors.hint,
        )


async def _read(response: aiohttp.ClientResponse, clock: StreamClock) -> Answer:
    lines: list[bytes] = []
    try:
        async for chunk in response.content.iter_any():
            lines += clock.feed(chunk, time.perf_counter())
        if clock.failed:
            return _FAILED
        text = "".join(map(_content, lines))
    except TimeoutError:
        return _FAILED  # it came, but not to its end in time
    except (aiohttp.ClientError, ValueError, TypeError, AttributeError):
        return _BROKEN
    return Answer(text, ttft_s=clock.ttft_s, tpot_s=clock.tpot_s)


def _content(line: bytes) -> str:
    """Return the text in an event."""
    data = data_of(line)
    if not data:
        return ""
    choices = json.loads(data).get("choices", ())
    return "".join(choice.get("delta", {}).get("content") or "" for choice in choices)
