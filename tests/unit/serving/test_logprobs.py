"""The client against bodies of the documented shape; the real engine: tests/integration."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from penstock.core.errors import NotReady, ServingError
from serving.completer import Message
from serving.logprobs import LogprobEndpoint, ToldAnswer

ASK: list[Message] = [{"role": "user", "content": "hi"}]


def token(text: str, logprob: float, told: list[int] | None = None) -> dict[str, Any]:
    return {"token": text, "logprob": logprob, "bytes": told}


def body(content: list[dict[str, Any]] | None, text: str | None = "hi") -> dict[str, Any]:
    logprobs = None if content is None else {"content": content, "refusal": None}
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "logprobs": logprobs, "finish_reason": "stop"}
    return {"object": "chat.completion", "choices": [choice]}


def ask(handler: Callable[[httpx.Request], httpx.Response]) -> ToldAnswer:
    endpoint = LogprobEndpoint(
        "http://m/v1/", "m", api_key="k", transport=httpx.MockTransport(handler)
    )
    try:
        return endpoint.answer([ASK], max_new_tokens=5)[0]
    finally:
        endpoint.close()


def replying(status: int = 200, **reply: Any) -> Callable[[httpx.Request], httpx.Response]:
    return lambda _request: httpx.Response(status, **reply)


def test_it_asks_as_documented() -> None:
    seen: list[httpx.Request] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json=body([]))

    assert ask(handler) == ToldAnswer("hi", ())
    assert str(seen[0].url) == "http://m/v1/chat/completions"
    assert seen[0].headers["Authorization"] == "Bearer k"
    assert json.loads(seen[0].content) == {
        "model": "m",
        "messages": ASK,
        "max_tokens": 5,
        "temperature": 0,
        "logprobs": True,
        "top_logprobs": 20,
    }


def test_tokens_are_their_bytes_or_their_text() -> None:
    content = [
        {**token("hi", -0.1, [104, 105]), "top_logprobs": [token("hi", -0.1), token("ho", -3.0)]},
        {**token("é", -0.2), "top_logprobs": []},
    ]
    found = ask(replying(json=body(content)))
    assert [each.token for each in found.positions] == [b"hi", "é".encode()]
    assert found.positions[0].top == {b"hi": -0.1, b"ho": -3.0}


def test_tokens_that_cannot_be_told_apart_are_left_out() -> None:
    alternatives = [token("�", -1.0), token("a", -2.0), token("b", -3.0), token("b", -4.0)]
    found = ask(replying(json=body([{**token("a", -2.0), "top_logprobs": alternatives}])))
    assert found.positions[0].top == {b"a": -2.0}


@pytest.mark.parametrize(
    "reply",
    [
        {"json": body(None)},
        {"json": {"choices": []}},
        {"json": body([token("a", -1.0)])},
        {"text": "<html>"},
    ],
)
def test_an_answer_without_log_probabilities_is_an_error(reply: dict[str, Any]) -> None:
    with pytest.raises(ServingError, match="no log-probabilities") as caught:
        ask(replying(**reply))
    assert "logprobs" in caught.value.hint


def test_a_refusal_is_told() -> None:
    with pytest.raises(ServingError, match=r"HTTP 400: .*too many"):
        ask(replying(400, json={"error": {"message": "too many"}}))


def test_a_busy_endpoint_is_asked_again_after_the_pause_it_names() -> None:
    replies = iter(
        [
            httpx.Response(429, headers={"Retry-After": "0"}),
            httpx.Response(429, headers={"Retry-After": "0"}),
            httpx.Response(200, json=body([])),
        ]
    )
    assert ask(lambda _request: next(replies)).text == "hi"
    with pytest.raises(NotReady, match="queue stays full"):
        ask(replying(429, headers={"Retry-After": "0"}))


def test_nobody_there_and_a_broken_connection_are_ours() -> None:
    def refuse(_request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    def cut(_request: httpx.Request) -> httpx.Response:
        raise httpx.ReadError("cut")

    with pytest.raises(NotReady, match="cannot connect"):
        ask(refuse)
    with pytest.raises(ServingError, match="ReadError"):
        ask(cut)
