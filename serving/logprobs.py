"""What an OpenAI-compatible endpoint tells of its log-probabilities.

Any may tell the likeliest tokens of what it generates (`logprobs`); some also of what they read
(`prompt_logprobs`, of vLLM: https://docs.vllm.ai, "OpenAI-Compatible Server"), so that two versions
can be made to say the same.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import httpx

from penstock.core.errors import NotReady, ServingError
from serving.completer import Message
from serving.endpoint import ATTEMPTS_WHEN_BUSY, LONGEST_PAUSE_S, pause_s

MOST_ALTERNATIVES = 20
"""What the OpenAI API allows per token, and vLLM's default limit."""

TIMEOUT_S = 120.0
_NOT_OFFERED = (400, 404, 422)
"""How servers refuse fields that they do not know, or do not allow."""


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


@dataclass(frozen=True, slots=True)
class ReadAnswer:
    """An answer that the model was made to say, token by token; tokens are named by their ids."""

    positions: tuple[Position, ...]
    """Each token is told, however unlikely it is."""


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

    def read(
        self,
        asked: Sequence[tuple[Sequence[Message], str]],
        *,
        alternatives: int = MOST_ALTERNATIVES,
    ) -> list[ReadAnswer] | None:
        """Returns what it thinks of given answers, in order; None where it does not tell.

        Args:
            asked: Conversations, and what is said in answer to each.
            alternatives: Likeliest tokens to be told per token.

        Raises:
            NotReady: Nothing answers there, or its queue stays full.
            ServingError: It breaks off, or tells what is not understood.
        """

        def one(pair: tuple[Sequence[Message], str]) -> ReadAnswer | None:
            return self._reading(pair[0], pair[1], alternatives)

        if not asked or one(asked[0]) is None:
            return None
        found = list(self._pool.map(one, asked))
        read = [each for each in found if each is not None]
        if len(read) < len(found):
            raise ServingError(
                f"{self.description}: it told the log-probabilities of some prompts, not of all",
                hint="look at the server's log; retry",
            )
        return read

    def close(self) -> None:
        """Ends the threads and connections."""
        self._closing.set()
        self._pool.shutdown(cancel_futures=True)
        self._client.close()

    def _reading(
        self, conversation: Sequence[Message], answer: str, alternatives: int
    ) -> ReadAnswer | None:
        """Returns an answer as it was read; None where the endpoint does not tell."""
        said: Message = {"role": "assistant", "content": answer}
        turn = {"add_generation_prompt": False, "continue_final_message": True}
        more = {"prompt_logprobs": alternatives}
        bodies = (
            {"messages": list(conversation)},
            {"messages": [*conversation, said], **turn, **more},
        )
        told = []
        for body in bodies:
            common = {"model": self._model, "max_tokens": 1, "temperature": 0}
            response = self._answered({**common, "return_token_ids": True, **body})
            if response.status_code in _NOT_OFFERED:
                return None
            self._require(response, "it must be able to read an answer that it did not give")
            told.append(_body(response))
        try:
            return _read(*told)
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            raise ServingError(
                f"{self.description}: its prompt_logprobs are not understood: {error}",
                hint="serve it with vLLM, or with an engine that tells no prompt_logprobs",
            ) from error

    def _one(self, body: Mapping[str, Any]) -> ToldAnswer:
        response = self._answered(body)
        self._require(response, "the endpoint must allow logprobs and top_logprobs of chats")
        try:
            return _told(response.json())
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise ServingError(
                f"{self.description}: the answer carries no log-probabilities",
                hint="serve it with an engine that supports logprobs in chat completions",
            ) from error

    def _require(self, response: httpx.Response, hint: str) -> None:
        if not response.is_success:
            raise ServingError(
                f"{self.description}: HTTP {response.status_code}: {response.text[:256]}", hint=hint
            )

    def _answered(self, body: Mapping[str, Any]) -> httpx.Response:
        """Returns the response, asked for again while the endpoint is busy."""
        for _ in range(ATTEMPTS_WHEN_BUSY):
            response = self._post(body)
            if response.status_code != 429:
                return response
            self._closing.wait(pause_s(response))
        raise NotReady(
            self.description,
            reason="its queue stays full",
            waited_s=ATTEMPTS_WHEN_BUSY * LONGEST_PAUSE_S,
            hint="lower the concurrency, or add replicas",
        )

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


def _body(response: httpx.Response) -> Mapping[str, Any]:
    try:
        body = response.json()
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def _read(before: Mapping[str, Any], whole: Mapping[str, Any]) -> ReadAnswer | None:
    """Returns the tokens of an answer, given the prompt without and with it.

    The answer is what comes after the tokens that both have in common: where an answer begins in a
    token, a template and a tokenizer decide. None where a body tells nothing of what was read;
    raises what a strange field raises.
    """
    told, ids, prompt = (
        whole.get("prompt_logprobs"),
        whole.get("prompt_token_ids"),
        before.get("prompt_token_ids"),
    )
    if not told or not ids or not prompt:
        return None
    if len(told) != len(ids):
        raise ValueError(f"{len(told)} of {len(ids)} tokens")
    common = takewhile(lambda pair: pair[0] == pair[1], zip(ids, prompt, strict=False))
    begin = len(list(common))
    positions = []
    for token, each in zip(ids[begin:], told[begin:], strict=True):
        top = {name.encode(): min(0.0, float(one["logprob"])) for name, one in each.items()}
        name = str(token).encode()
        positions.append(Position(name, top[name], top))
    if not positions or any(math.isnan(log) for each in positions for log in each.top.values()):
        raise ValueError("a log-probability is not a number, or there is none")
    return ReadAnswer(tuple(positions))


def _bytes(token: Mapping[str, Any]) -> bytes:
    """Returns the token's bytes; engines that tell none tell its text."""
    told = token.get("bytes")
    return bytes(told) if told is not None else str(token["token"]).encode()
