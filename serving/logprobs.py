"""Greedy answers with the likeliest tokens beside each, from any OpenAI-compatible endpoint."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import httpx

from penstock.core.errors import NotReady, ServingError
from serving.completer import Message
from serving.endpoint import ATTEMPTS_WHEN_BUSY, LONGEST_PAUSE_S, pause_s

MOST_ALTERNATIVES = 20
"""What the OpenAI API allows per token, and vLLM's default limit."""

TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True)
class Position:
    """One token of an answer, and what else could have stood there."""

    token: bytes
    logprob: float
    """Natural logarithm."""

    top: Mapping[bytes, float]
    """The likeliest tokens with their natural logarithms. Tokens whose bytes are not told apart
    (parts of a character, shown as U+FFFD) are left out."""


@dataclass(frozen=True, slots=True)
class ToldAnswer:
    """An answer, token by token."""

    text: str
    positions: tuple[Position, ...]


class LogprobEndpoint:
    """A served model that tells log-probabilities (`logprobs`, `top_logprobs` of chat).

    Args:
        base_url: Where the API is, with or without the final `/v1`.
        model: The name of the model there.
        api_key: Sent as a bearer token.
        concurrency: Requests in flight together.
        transport: Another way to the endpoint than the network.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        api_key: str | None = None,
        concurrency: int = 8,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._url = base_url.rstrip("/").removesuffix("/v1")
        self._model = model
        self._closing = threading.Event()
        self._pool = ThreadPoolExecutor(max_workers=concurrency, thread_name_prefix="logprobs")
        self._client = httpx.Client(
            base_url=self._url,
            headers={"Authorization": f"Bearer {api_key}"} if api_key else {},
            timeout=TIMEOUT_S,
            limits=httpx.Limits(max_connections=concurrency),
            transport=transport,
        )

    @property
    def description(self) -> str:
        """The URL and the model."""
        return f"{self._url} ({self._model})"

    def answer(
        self,
        conversations: Sequence[Sequence[Message]],
        *,
        max_new_tokens: int,
        alternatives: int = MOST_ALTERNATIVES,
    ) -> list[ToldAnswer]:
        """Returns one greedy answer per conversation, in order.

        Raises:
            NotReady: Nothing answers there, or its queue stays full.
            ServingError: It refuses the request, or tells no log-probabilities.
        """
        bodies = [
            {
                "model": self._model,
                "messages": list(conversation),
                "max_tokens": max_new_tokens,
                "temperature": 0,
                "logprobs": True,
                "top_logprobs": alternatives,
            }
            for conversation in conversations
        ]
        return list(self._pool.map(self._one, bodies))

    def close(self) -> None:
        """Ends the threads and connections."""
        self._closing.set()
        self._pool.shutdown(cancel_futures=True)
        self._client.close()

    def _one(self, body: Mapping[str, Any]) -> ToldAnswer:
        for _ in range(ATTEMPTS_WHEN_BUSY):
            response = self._post(body)
            if response.status_code != 429:
                break
            self._closing.wait(pause_s(response))
        else:
            raise NotReady(
                self.description,
                reason="its queue stays full",
                waited_s=ATTEMPTS_WHEN_BUSY * LONGEST_PAUSE_S,
                hint="lower the concurrency, or add replicas",
            )
        if not response.is_success:
            raise ServingError(
                f"{self.description}: HTTP {response.status_code}: {response.text[:256]}",
                hint="the endpoint must allow logprobs and top_logprobs of chat completions",
            )
        try:
            return _told(response.json())
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise ServingError(
                f"{self.description}: the answer carries no log-probabilities",
                hint="serve it with an engine that supports logprobs in chat completions",
            ) from error

    def _post(self, body: Mapping[str, Any]) -> httpx.Response:
        try:
            return self._client.post("/v1/chat/completions", json=body)
        except httpx.ConnectError as error:
            raise NotReady(
                self._url,
                reason=f"cannot connect: {error}",
                waited_s=0,
                hint="is the server running? check the URL",
            ) from error
        except httpx.HTTPError as error:
            raise ServingError(
                f"{self._url}: {type(error).__name__}: {error}",
                hint="look at the server's log; retry",
            ) from error


def _told(body: Mapping[str, Any]) -> ToldAnswer:
    """Returns the answer of a chat completion; raises what a missing field raises."""
    choice = body["choices"][0]
    positions = []
    for each in choice["logprobs"]["content"]:
        named = [(_bytes(alternative), alternative) for alternative in each["top_logprobs"]]
        keys = [key for key, _ in named]
        top = {
            key: min(0.0, float(alternative["logprob"]))
            for key, alternative in named
            if keys.count(key) == 1 and b"\xef\xbf\xbd" not in key
        }
        positions.append(Position(_bytes(each), min(0.0, float(each["logprob"])), top))
    if any(math.isnan(position.logprob) for position in positions):
        raise ValueError("a log-probability is not a number")
    return ToldAnswer(choice["message"]["content"] or "", tuple(positions))


def _bytes(token: Mapping[str, Any]) -> bytes:
    """Returns the token's bytes; engines that tell none tell its text."""
    told = token.get("bytes")
    return bytes(told) if told is not None else str(token["token"]).encode()
