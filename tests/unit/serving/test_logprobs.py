"""The client against bodies of the documented shape; the real engine: tests/integration."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from penstock.core.errors import NotReady, ServingError
from serving.completer import Message
from serving.logprobs import LogprobEndpoint, Position, ReadAnswer, ToldAnswer

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


def reader(**more: Any) -> Callable[[httpx.Request], httpx.Response]:
    """Answer as vLLM does: the prompt is tokens 1, 2, 3; with an answer, 4 and 5 in place of 3."""
    nothing = {"usage": {}, "choices": [{"message": {"content": "x"}}]}
    each = {"4": {"logprob": -0.5, "rank": 1}, "9": {"logprob": -1.5, "rank": 2}}
    rare = {"5": {"logprob": -7.5, "rank": 80}, "4": {"logprob": -0.1, "rank": 1}}
    whole = {"prompt_token_ids": [1, 2, 4, 5], "prompt_logprobs": [None, each, each, rare]}

    def handler(request: httpx.Request) -> httpx.Response:
        asked = json.loads(request.content)
        short = {"prompt_token_ids": [1, 2, 3]}
        told = {**whole, **more} if "prompt_logprobs" in asked else short
        return httpx.Response(200, json={**nothing, **told})

    return handler


def read(handler: Callable[[httpx.Request], httpx.Response]) -> list[ReadAnswer] | None:
    endpoint = LogprobEndpoint("http://m", "m", transport=httpx.MockTransport(handler))
    try:
        return endpoint.read([(ASK, "ho"), (ASK, "ho")], alternatives=2)
    finally:
        endpoint.close()


def test_given_answers_are_read_from_where_they_differ_from_the_prompt() -> None:
    found = read(reader())
    assert found is not None
    assert len(found) == 2
    assert found[0] == ReadAnswer(
        (
            Position(b"4", -0.5, {b"4": -0.5, b"9": -1.5}),
            Position(b"5", -7.5, {b"5": -7.5, b"4": -0.1}),
        )
    )


def test_it_is_made_to_say_the_answer_as_documented() -> None:
    seen: list[dict[str, Any]] = []
    answers = reader()

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(json.loads(request.content))
        return answers(request)

    assert read(handler)
    common = {"model": "m", "max_tokens": 1, "temperature": 0, "return_token_ids": True}
    assert seen[0] == {**common, "messages": ASK}
    assert seen[1] == {
        **common,
        "messages": [*ASK, {"role": "assistant", "content": "ho"}],
        "add_generation_prompt": False,
        "continue_final_message": True,
        "prompt_logprobs": 2,
    }


@pytest.mark.parametrize(
    "handler",
    [
        replying(json=body([])),
        replying(400, json={"error": {"message": "unknown field"}}),
        replying(422),
        replying(text="<html>"),
        reader(prompt_logprobs=None),
        reader(prompt_token_ids=None),
    ],
)
def test_many_endpoints_do_not_tell_what_they_read(
    handler: Callable[[httpx.Request], httpx.Response],
) -> None:
    assert read(handler) is None


@pytest.mark.parametrize(
    "handler",
    [
        reader(prompt_logprobs=[None, {}]),
        reader(prompt_logprobs=[None, {}, {}, {}]),
        reader(prompt_logprobs=[None, 3, 3, 3]),
        reader(prompt_token_ids=[1, 2, 3], prompt_logprobs=[None, {}, {}]),
    ],
)
def test_what_is_told_and_not_understood_is_an_error(
    handler: Callable[[httpx.Request], httpx.Response],
) -> None:
    with pytest.raises(ServingError, match="prompt_logprobs are not understood"):
        read(handler)


def test_an_endpoint_that_breaks_while_it_reads_is_an_error() -> None:
    with pytest.raises(ServingError, match="HTTP 500"):
        read(replying(500, text="out of memory"))
