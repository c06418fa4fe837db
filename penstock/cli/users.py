"""Users, for a demo: questions at a steady rate, streamed, from the first version to the last."""

from __future__ import annotations

import asyncio
import json
import random
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any

import aiohttp

LONGEST_S = 900.0
"""The load ends by itself after this, whatever happens."""

_CONNECTIONS = 64


class Users:
    """Asks the questions in a thread of its own; the counts may be read at any time.

    Args:
        url: The gateway.
        model: Whom they ask.
        conversations: What they ask; drawn at random.
        rps: Requests per second.
        seed: Of the drawing and of the pauses.
        headers: Sent with every request.
    """

    def __init__(
        self,
        url: str,
        model: str,
        conversations: Sequence[Any],
        *,
        rps: float,
        seed: int,
        headers: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self._headers = dict(headers)
        self._url, self._model, self._conversations = url, model, conversations
        self._rps, self._rng = rps, random.Random(seed)  # noqa: S311 - a load, not a secret
        self._stop = threading.Event()
        self.asked = 0
        self.failures: list[str] = []
        """What each request that failed got instead of an answer."""

    @property
    def failed(self) -> int:
        """How many requests failed."""
        return len(self.failures)

    @contextmanager
    def asking(self) -> Iterator[Users]:
        """Ask until the block ends; every request is then answered or given up."""
        thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            thread.join(30)

    async def _run(self) -> None:
        loop, under_way = asyncio.get_running_loop(), set()
        end = loop.time() + LONGEST_S
        async with aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=_CONNECTIONS),
            timeout=aiohttp.ClientTimeout(total=30),
        ) as http:
            while not self._stop.is_set() and loop.time() < end:
                one = asyncio.create_task(self._ask(http))
                under_way.add(one)
                one.add_done_callback(under_way.discard)
                await asyncio.sleep(self._rng.expovariate(self._rps))
            await asyncio.gather(*under_way)

    async def _ask(self, http: aiohttp.ClientSession) -> None:
        body = {
            "model": self._model,
            "messages": self._rng.choice(self._conversations),
            "max_tokens": 24,
            "temperature": 0,
            "stream": True,
        }
        self.asked += 1
        url, headers = f"{self._url}/v1/chat/completions", self._headers
        try:
            async with http.post(url, json=body, headers=headers) as response:
                text = await response.read()
        except (aiohttp.ClientError, TimeoutError) as problem:
            self.failures.append(f"{type(problem).__name__}: {problem}")
            return
        if response.status != 200 or not text.endswith(b"data: [DONE]\n\n"):
            self.failures.append(f"HTTP {response.status}: {text[-300:].decode(errors='replace')}")


def conversations_in(text: str) -> list[Any]:
    """Return the conversations of a data set."""
    return [json.loads(line)["messages"] for line in text.splitlines() if line]
