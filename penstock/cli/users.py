"""Users, for a demo: questions at a steady rate, streamed, from the first version to the last."""

from __future__ import annotations

import asyncio
import json
import random
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
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
    """

    def __init__(
        self, url: str, model: str, conversations: Sequence[Any], *, rps: float, seed: int
    ) -> None:
        self._url, self._model, self._conversations = url, model, conversations
        self._rps, self._rng = rps, random.Random(seed)  # noqa: S311 - a load, not a secret
        self._stop = threading.Event()
        self.asked = 0
        self.failed = 0

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
        try:
            async with http.post(f"{self._url}/v1/chat/completions", json=body) as response:
                text = await response.read()
            answered = response.status == 200 and text.endswith(b"data: [DONE]\n\n")
        except (aiohttp.ClientError, TimeoutError):
            answered = False
        self.failed += not answered


def conversations_in(text: str) -> list[Any]:
    """Return the conversations of a data set."""
    return [json.loads(line)["messages"] for line in text.splitlines() if line]
