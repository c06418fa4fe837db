from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.sse import StreamClock, data_of


def _event(document: object) -> bytes:
    return b"data: " + json.dumps(document).encode() + b"\n\n"


def _chat(**delta: object) -> dict[str, object]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]}


def test_ttft_and_tpot_are_those_of_events_with_content() -> None:
    clock = StreamClock(10.0)
    clock.feed(_event(_chat(role="assistant", content="")), 10.1)
    assert clock.events == 0
    for now, text in ((11.0, "a"), (11.5, "b"), (13.0, "c")):
        clock.feed(_event(_chat(content=text)), now)
    clock.feed(_event(_chat()) + b"data: [DONE]\n\n", 20.0)
    assert (clock.events, clock.ttft_s, clock.tpot_s) == (3, 1.0, 1.0)


def test_one_event_has_no_time_per_token() -> None:
    clock = StreamClock(0.0)
    clock.feed(_event(_chat(content="a")), 1.0)
    assert (clock.ttft_s, clock.tpot_s) == (1.0, None)


@pytest.mark.parametrize(
    ("document", "carries"),
    [
        ({"choices": [{"text": "a"}]}, True),
        ({"choices": [{"text": ""}]}, False),
        (_chat(reasoning_content="hm"), True),
        (_chat(tool_calls=[{"function": {"arguments": "{"}}]), True),
        ({"choices": [], "usage": {"completion_tokens": 3}}, False),
        ({"choices": [{"delta": {}, "logprobs": {"content": [{"token": "text"}]}}]}, False),
        (_chat(refusal=' "content": "x"'), False),
    ],
)
def test_what_carries_content(document: object, carries: bool) -> None:
    for text in (_event(document), _event(document).replace(b": ", b":")):
        clock = StreamClock(0.0)
        clock.feed(text, 1.0)
        assert (clock.events == 1, clock.failed) == (carries, False)


@pytest.mark.parametrize("text", [b'{"error": {"message": "no"}}', b'{"object":"error","code":5}'])
def test_an_error_in_place_of_the_rest_is_seen(text: bytes) -> None:
    clock = StreamClock(0.0)
    clock.feed(b"data: " + text + b"\n\n", 1.0)
    assert clock.failed


@given(st.lists(st.text(min_size=1), max_size=5), st.lists(st.integers(0, 400), max_size=8))
def test_it_does_not_matter_where_the_network_cuts(texts: list[str], cuts: list[int]) -> None:
    stream = b"".join(_event(_chat(content=text)) for text in texts) + b"data: [DONE]\n\n"
    clock, lines, before = StreamClock(0.0), list[bytes](), 0
    for cut in [*sorted(min(cut, len(stream)) for cut in cuts), len(stream)]:
        lines += clock.feed(stream[before:cut], 1.0)
        before = cut
    assert clock.events == len(texts)
    found = [json.loads(data) for line in lines if (data := data_of(line))]
    assert [each["choices"][0]["delta"]["content"] for each in found] == texts
