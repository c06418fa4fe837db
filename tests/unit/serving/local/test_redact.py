from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.local.redact import redact, redact_body


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("write to jo.e+x@mail.example.org, now", "write to <email>, now"),
        ("josé@example.org", "<email>"),
        ("card 4111 1111 1111 1111.", "card <number>."),
        ("4111111111111111", "<number>"),
        ("call +44 20 7946 0958 or (555) 123-4567", "call <number> or <number>"),
        ("my number is 078-05-1120", "my number is <number>"),
        ("DE89 3702 0044 0532 0130 00", "<number>"),
        ("Authorization: Bearer abc.def-ghi", "Authorization: Bearer <secret>"),
        ("use sk-abcdefghijklmnopqrstuvwx", "use <secret>"),
        ("AKIAIOSFODNN7EXAMPLE", "<secret>"),
        ("password: hunter22, ok", "password: <secret>, ok"),
        ("API_KEY='0123abcdef'", "API_KEY='0123abcdef'"),
        ("api_key=0123abcdef", "api_key=<secret>"),
        ("id 0123456789abcdef0123456789abcdef", "id <secret>"),
    ],
)
def test_what_looks_personal_or_secret_goes(text: str, clean: str) -> None:
    assert redact(text) == clean


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Which is larger, 258 or 750?",
        "Sort 12 25 37 41 99.",
        "Write 18 April 2030 as YYYY-MM-DD; it was 2026-11-24 22:30:05",
        "pi is 3.14159265358979",
        "def at(self): return self @ other",
        "a" * 100,
    ],
)
def test_what_a_model_is_asked_stays(text: str) -> None:
    assert redact(text) == text


def test_a_body_stays_json_with_what_is_no_text_untouched() -> None:
    body = {
        "model": "m",
        "seed": 1234567890123,
        "messages": [{"role": "user", "content": 'call\n4111111111111111 "é@example.org"'}],
    }
    clean = json.loads(redact_body(json.dumps(body)))
    assert clean == {
        **body,
        "messages": [{"role": "user", "content": 'call\n<number> "<email>"'}],
    }


def test_a_body_with_nothing_to_hide_keeps_its_bytes() -> None:
    body = '{"model": "m",  "messages": []}'
    assert redact_body(body) == body


def test_what_was_cut_off_is_redacted_as_text() -> None:
    assert redact_body('{"content": "I am a@example.org and') == '{"content": "I am <email> and'


@given(st.lists(st.sampled_from(["a@b.co", "4111111111111111", "hi", "\n", '"', "\\", "é", " "])))
def test_any_body_stays_json(parts: list[str]) -> None:
    text = "".join(parts)
    assert json.loads(redact_body(json.dumps({"x": [text]}))) == {"x": [redact(text)]}


@pytest.mark.parametrize("part", ["a", "1", "a1 ", "a-", "1 ", "+1", "a@", "a.", "(1", "password:"])
def test_a_large_body_takes_no_time(part: str) -> None:
    start = time.process_time()
    redact_body(json.dumps({"x": part * (65_536 // len(part))}))
    assert time.process_time() - start < 0.5
