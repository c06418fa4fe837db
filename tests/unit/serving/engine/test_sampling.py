from __future__ import annotations

from typing import Any

import pytest

from serving.engine.refusals import QueueFull, RequestRefused, Unavailable, context_exceeded
from serving.engine.sampling import ChatRequest, CompletionRequest, Sampling, parse

CHAT: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
COMPLETION: dict[str, Any] = {"model": "m", "prompt": "hi"}


def test_defaults_are_those_of_the_api() -> None:
    chat, completion = parse(ChatRequest, CHAT), parse(CompletionRequest, COMPLETION)
    assert chat.sampling() == completion.sampling() == Sampling()
    assert chat.limit() is None
    assert completion.limit() == 16
    assert chat.stops == ()
    assert not chat.usage_in_stream


def test_fields_reach_the_engine() -> None:
    request = parse(
        ChatRequest,
        CHAT
        | {
            "temperature": 0.5,
            "top_p": 0.9,
            "top_k": 7,
            "seed": 3,
            "max_tokens": 5,
            "max_completion_tokens": 6,
            "stop": "x",
            "logprobs": True,
            "top_logprobs": 2,
            "stream": True,
            "stream_options": {"include_usage": True},
        },
    )
    assert request.sampling() == Sampling(0.5, 0.9, 7, 3, 2)
    assert request.limit() == 6
    assert request.stops == ("x",)
    assert request.usage_in_stream


def test_neutral_values_of_what_is_not_supported_are_accepted() -> None:
    neutral = {"n": 1, "presence_penalty": 0, "logit_bias": {}, "user": "somebody", "tools": []}
    parse(ChatRequest, CHAT | neutral | {"response_format": {"type": "text"}})
    parse(CompletionRequest, COMPLETION | {"best_of": 1, "echo": False, "suffix": None})


@pytest.mark.parametrize(
    ("param", "value"),
    [
        ("model", ""),
        ("messages", []),
        ("messages", [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]),
        ("temperature", 2.5),
        ("temperature", "hot"),
        ("top_p", 0),
        ("max_tokens", 0),
        ("max_completion_tokens", -1),
        ("stop", ["a", "b", "c", "d", "e"]),
        ("stop", ""),
        ("n", 2),
        ("presence_penalty", 0.5),
        ("logit_bias", {"5": 1}),
        ("top_logprobs", 21),
        ("top_logprobs", 2),  # without logprobs
        ("stream_options", {"include_usage": True}),  # without stream
        ("tools", [{"type": "function"}]),
        ("response_format", {"type": "json_object"}),
    ],
)
def test_a_wrong_field_of_a_chat_is_named(param: str, value: object) -> None:
    with pytest.raises(RequestRefused) as refused:
        parse(ChatRequest, CHAT | {param: value})
    assert refused.value.status == 400
    assert refused.value.body["error"]["param"] == param
    assert refused.value.body["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("param", "value"),
    [("prompt", []), ("prompt", ["a", "b"]), ("echo", True), ("best_of", 3), ("logprobs", 6)],
)
def test_a_wrong_field_of_a_completion_is_named(param: str, value: object) -> None:
    with pytest.raises(RequestRefused) as refused:
        parse(CompletionRequest, COMPLETION | {param: value})
    assert refused.value.param == param


def test_a_body_that_is_no_object_is_refused() -> None:
    with pytest.raises(RequestRefused, match="JSON object"):
        parse(ChatRequest, ["a"])


def test_text_parts_become_one_string_and_other_fields_stay() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    turn = {"role": "user", "content": parts, "name": "ann"}
    request = parse(ChatRequest, CHAT | {"messages": [turn]})
    assert request.messages[0].for_template() == {"role": "user", "name": "ann", "content": "ab"}


@pytest.mark.parametrize(
    ("prompt", "text", "token_ids"),
    [("hi", "hi", None), (["hi"], "hi", None), ([5, 6], "", [5, 6])],
)
def test_prompts_come_as_text_or_tokens(
    prompt: object, text: str, token_ids: list[int] | None
) -> None:
    request = parse(CompletionRequest, {"model": "m", "prompt": prompt})
    assert request.prompt_as() == (text, token_ids)


def test_refusals_speak_the_language_of_the_api() -> None:
    assert QueueFull(3).status == 429
    assert QueueFull(3).retry_after_s == 1
    assert QueueFull(3).body["error"]["type"] == "rate_limit_error"
    assert Unavailable("x").body["error"]["type"] == "server_error"
    assert context_exceeded(5, 6, 10, param="prompt").code == "context_length_exceeded"
