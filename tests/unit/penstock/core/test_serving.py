"""The section `serving`: what may stand there, and what is said about the rest."""

from __future__ import annotations

import json

import pytest

from penstock.core.documents import parse_spec
from penstock.core.errors import SpecError
from penstock.core.serving import SPECULATIVE, Eagle, Serving

_BASE = "name: m\nsource: hf://org/x\n"
_KINDS = "draft | ngram | eagle"


def test_nothing_is_set_unless_somebody_does() -> None:
    assert parse_spec(_BASE).serving == Serving()
    told = Serving().model_dump(exclude_none=True)
    assert told == {"kv_cache": "auto"}


def test_it_survives_the_one_json_parameter_of_pipelines() -> None:
    text = (
        _BASE + "serving: {context: 8192, speculative: {kind: eagle, model: ./head/}, "
        "lora: {adapters: {law.v2: adapters/law}}}"
    )
    spec = parse_spec(text)
    assert spec.serving.speculative == Eagle(kind="eagle", model="head")
    assert parse_spec(spec.to_json()) == spec
    assert json.loads(spec.to_json())["serving"]["lora"]["adapters"] == {"law.v2": "adapters/law"}


def test_every_kind_is_known_by_its_name() -> None:
    for kind, model in SPECULATIVE.items():
        body = {"kind": kind} if kind == "ngram" else {"kind": kind, "model": "x"}
        assert model.model_validate(body).model_dump()["kind"] == kind


@pytest.mark.parametrize(
    ("body", "path", "found", "allowed", "near"),
    [
        ("{contxt: 5}", "serving.contxt", "an unknown field", "context", "context"),
        ("{context: 8}", "serving.context", "8", "greater than or equal to 16", ""),
        ("{context: many}", "serving.context", '"many"', "integer", ""),
        ("{kv_cache: fp9}", "serving.kv_cache", '"fp9"', "auto | fp8", "fp8"),
        ("{memory_share: 1.0}", "serving.memory_share", "1.0", "less than 1", ""),
        ("{tool_parser: 'a b'}", "serving.tool_parser", '"a b"', "as the engine names it", ""),
        ("{chat_template: /etc/x}", "serving.chat_template", '"/etc/x"', "inside the", ""),
        ("{chat_template: ../x}", "serving.chat_template", '"../x"', "inside the checkpoint", ""),
        ("{speculative: ngram}", "serving.speculative", '"ngram"', "an object", ""),
        ("{speculative: {tokens: 3}}", "serving.speculative.kind", "nothing", _KINDS, ""),
        ("{speculative: {kind: drft}}", "serving.speculative.kind", '"drft"', _KINDS, "draft"),
        ("{speculative: {kind: draft}}", "serving.speculative.model", "nothing", "small model", ""),
        (
            "{speculative: {kind: ngram, tokns: 3}}",
            *("serving.speculative.tokns", "an unknown field", "kind, tokens", "tokens"),
        ),
        (
            "{speculative: {kind: eagle, model: h, version: 2}}",
            *("serving.speculative.version", "2", "1 | 3", ""),
        ),
        ("{lora: {}}", "serving.lora.adapters", "nothing", "folder of the checkpoint", ""),
        ("{lora: {adapters: {}}}", "serving.lora.adapters", "{}", "at least 1", ""),
        ("{lora: {adapters: {a b: x}}}", "serving.lora.adapters.a b", '"a b"', "letters", ""),
        ("{lora: {adapters: {draft: /x}}}", "serving.lora.adapters.draft", '"/x"', "inside", ""),
    ],
)
def test_a_mistake_is_named_where_it_was_written(
    body: str, path: str, found: str, allowed: str, near: str
) -> None:
    with pytest.raises(SpecError) as refused:
        parse_spec(f"{_BASE}serving: {body}\n")
    (mistake,) = refused.value.mistakes
    assert (mistake.path, mistake.found, mistake.nearest) == (path, found, near)
    assert allowed in mistake.allowed
