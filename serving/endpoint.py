"""Answers from any OpenAI-compatible endpoint, several at a time."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import httpx

from penstock.core.errors import NotReady, ServingError
from serving.completer import Completion, Message

CONNECT_TIMEOUT_S = 10.0
SILENCE_TIMEOUT_S = 120.0
"""The longest wait between two pieces of an answer."""

ATTEMPTS_WHEN_BUSY = 8
LONGEST_PAUSE_S = 10.0


def _ignore(_count: int) -> None:
    """Reports progress to nobody."""


class EndpointCompleter:
    """A served model; a `Completer`.

    Answers are streamed, so that the time to the first token is seen. A busy endpoint (429) is
    asked again after the pause it names.

    Args:
        base_url: Where the API is, with or without the final `/v1`.
        model: The name of the model there.
        api_key: Sent as a bearer token.
        headers: Sent with every request.
        concurrency: Requests in flight together.
        transport: Another way to the endpoint than the network.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        api_key: str | None = None,
        headers: Mapping[str, str] = MappingProxyType({}),
        concurrency: int = 8,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._url = base_url.rstrip("/").removesuffix("/v1")
        self._model = model
        self._closing = threading.Event()
        self._pool = ThreadPoolExecutor(max_workers=concurrency, thread_name_prefix="completer")
        self._client = httpx.Client(
            base_url=self._url,
            headers={**headers, **({"Authorization": f"Bearer {api_key}"} if api_key else {})},
            timeout=httpx.Timeout(SILENCE_TIMEOUT_S, connect=CONNECT_TIMEOUT_S),
            limits=httpx.Limits(max_connections=concurrency + 1),
            transport=transport,
        )

    @property
    def description(self) -> str:
        """The URL and the model."""
        return f"{self._url} ({self._model})"

    def complete(
        self,
        conversations: Sequence[Sequence[Message]],
        *,
        max_new_tokens: int,
        on_done: Callable[[int], None] = _ignore,
    ) -> list[Completion]:
        """Returns one completion per conversation, in order; `on_done(n)` reports progress.

        Raises:
            NotReady: Nothing answers there, or it is starting or overloaded.
            ServingError: It refuses the requests.
        """
        if self._closing.is_set():
            raise ServingError(f"{self.description}: already closed")
        futures = [
            self._pool.submit(self._complete_one, list(conversation), max_new_tokens)
            for conversation in conversations
        ]
        try:
            for count, future in enumerate(as_completed(futures), start=1):
                future.result()
                on_done(count)
        except BaseException:
            _cancel(futures)
            raise
        return [future.result() for future in futures]

    def answer_log_likelihoods(
        self,
        conversations: Sequence[Sequence[Message]],  # noqa: ARG002 - the protocol's
        answers: Sequence[str],  # noqa: ARG002 - the protocol's
    ) -> list[tuple[float, int]] | None:
        """Returns None: the API scores only what the model itself says, never a given answer."""
        return None

    def close(self) -> None:
        """Ends the threads and connections."""
        self._closing.set()
        self._pool.shutdown(cancel_futures=True)
        self._client.close()

    def _complete_one(self, conversation: list[Message], max_new_tokens: int) -> Completion:
        body = {
            "model": self._model,
            "messages": conversation,
            "max_tokens": max_new_tokens,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        for _ in range(ATTEMPTS_WHEN_BUSY):
            sent = time.perf_counter()
            with self._stream(body) as response:
                if response.status_code == 429:
                    self._closing.wait(pause_s(response))
                    continue
                self._check(response)
                answer = _Streamed(sent)
                for chunk in _events(response):
                    answer.add(chunk)
                return answer.completion()
        raise NotReady(
            self.description,
            reason="its queue stays full",
            waited_s=ATTEMPTS_WHEN_BUSY * LONGEST_PAUSE_S,
            hint="lower the concurrency, or add replicas",
        )

    def _stream(self, body: Mapping[str, Any]) -> _Opened:
        return _Opened(self._client, self._url, body)

    def _check(self, response: httpx.Response) -> None:
        if response.is_success:
            return
        response.read()
        message, code = _error_of(response)
        if response.status_code == 503:
            raise NotReady(self.description, reason=message, waited_s=0, hint="wait until /ready")
        hint = ""
        if response.status_code == 404:
            hint = self._models_there()
        elif response.status_code in (401, 403):
            hint = "pass an API key that the endpoint accepts"
        elif code == "context_length_exceeded":
            hint = "shorten the conversation, or ask for fewer new tokens"
        raise ServingError(f"{self.description}: HTTP {response.status_code}: {message}", hint=hint)

    def _models_there(self) -> str:
        try:
            listed = self._client.get("/v1/models").json()["data"]
            names = ", ".join(sorted(str(each["id"]) for each in listed))
        except (httpx.HTTPError, ValueError, KeyError, TypeError):
            return "is this the base URL of an OpenAI-compatible API?"
        return f"models there: {names or 'none'}"


class _Opened:
    """A streamed request whose transport errors are ours."""

    def __init__(self, client: httpx.Client, url: str, body: Mapping[str, Any]) -> None:
        self._url = url
        self._context = client.stream("POST", "/v1/chat/completions", json=body)

    def __enter__(self) -> httpx.Response:
        try:
            return self._context.__enter__()
        except httpx.HTTPError as error:
            raise self._explain(error) from error

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        self._context.__exit__(kind, error, traceback)
        if isinstance(error, httpx.HTTPError):
            raise self._explain(error) from error

    def _explain(self, error: httpx.HTTPError) -> ServingError:
        if isinstance(error, httpx.ConnectError):
            return NotReady(
                self._url,
                reason=f"cannot connect: {error}",
                waited_s=0,
                hint="is the server running? check the URL",
            )
        return ServingError(
            f"{self._url}: {type(error).__name__}: {error}", hint="look at the server's log; retry"
        )


@dataclass(slots=True)
class _Streamed:
    """An answer put together from its chunks."""

    sent: float
    first_token: float | None = None
    text: list[str] = field(default_factory=list)
    finish_reason: str = "length"
    prompt_tokens: int = 0
    completion_tokens: int | None = None

    def add(self, chunk: Mapping[str, Any]) -> None:
        if "error" in chunk:
            raise ServingError(f"the answer broke off: {chunk['error'].get('message', '')}")
        for choice in chunk.get("choices", ()):
            content = choice.get("delta", {}).get("content")
            if content:
                self.text.append(content)
            if self.first_token is None and (content or choice.get("finish_reason")):
                self.first_token = time.perf_counter()
            self.finish_reason = choice.get("finish_reason") or self.finish_reason
        if usage := chunk.get("usage"):
            self.prompt_tokens = usage["prompt_tokens"]
            self.completion_tokens = usage["completion_tokens"]

    def completion(self) -> Completion:
        # an endpoint without usage sends about one token per chunk
        tokens = len(self.text) if self.completion_tokens is None else self.completion_tokens
        return Completion(
            text="".join(self.text),
            finish_reason=self.finish_reason,
            prompt_tokens=self.prompt_tokens,
            completion_tokens=tokens,
            ttft_s=None if self.first_token is None else self.first_token - self.sent,
            e2e_s=time.perf_counter() - self.sent,
        )


def _events(response: httpx.Response) -> Iterator[Mapping[str, Any]]:
    for line in response.iter_lines():
        data = line.removeprefix("data:").strip()
        if not line.startswith("data:") or data == "[DONE]":
            continue
        try:
            chunk = json.loads(data)
        except ValueError as error:
            raise ServingError(f"the stream holds no JSON: {data[:200]}") from error
        if isinstance(chunk, dict):
            yield chunk


def _error_of(response: httpx.Response) -> tuple[str, str]:
    """Returns message and code of an OpenAI error body, or the start of whatever came."""
    try:
        error = response.json()["error"]
        return str(error["message"]), str(error.get("code"))
    except (ValueError, KeyError, TypeError, AttributeError):
        return response.text[:256] or response.reason_phrase, ""


def pause_s(response: httpx.Response) -> float:
    """Return how long a busy endpoint asks to wait, in seconds; `LONGEST_PAUSE_S` at most."""
    try:
        return min(float(response.headers.get("Retry-After", "1")), LONGEST_PAUSE_S)
    except ValueError:
        return 1.0


def _cancel(futures: Sequence[Future[Completion]]) -> None:
    for future in futures:
        future.cancel()
