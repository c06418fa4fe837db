import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from penstock.cli.schema import REFERENCE, documents
from penstock.core.documents import parse_spec
from penstock.core.errors import SpecError
from penstock.core.hardware import ACCELERATORS
from penstock.core.spec import ModelSpec

MINIMAL = "name: skills\nsource: hf://penstock/skills\n"

SPECS = st.fixed_dictionaries(
    {
        "name": st.from_regex(r"[a-z]([a-z0-9-]{0,38}[a-z0-9])?", fullmatch=True),
        "source": st.sampled_from(["hf://a/b", "file:///m", "models:/x@champion", "s3://b/p"]),
    },
    optional={
        "hardware": st.fixed_dictionaries(
            {"accelerator": st.sampled_from(list(ACCELERATORS)), "count": st.integers(1, 16)}
        ),
        "replicas": st.integers(1, 64),
        "rollout": st.fixed_dictionaries(
            {"steps": st.sets(st.integers(1, 99), min_size=1).map(sorted)}
        ),
        "target": st.one_of(
            st.just("local"), st.just({"kserve": {"namespace": "models", "mode": "route"}})
        ),
    },
)


def _mistakes(text: str) -> list[tuple[str, str, str, str]]:
    with pytest.raises(SpecError) as caught:
        parse_spec(text)
    assert caught.value.exit_code == 2
    return [(m.path, m.found, m.allowed, m.nearest) for m in caught.value.mistakes]


def test_name_and_source_suffice() -> None:
    spec = parse_spec(MINIMAL)
    assert (spec.target, spec.runtime, spec.evaluation.max_quality_loss) == ("local", "auto", 0.015)


@given(SPECS)
def test_round_trip_and_schema(body: dict[str, Any]) -> None:
    spec = parse_spec(json.dumps(body))
    assert parse_spec(spec.to_json()) == spec
    Draft202012Validator(ModelSpec.model_json_schema(by_alias=True)).validate(
        json.loads(spec.to_json())
    )


def test_every_field_is_documented() -> None:
    schema = ModelSpec.model_json_schema(by_alias=True)
    for model in (schema, *schema["$defs"].values()):
        for name, field in model["properties"].items():
            target = field.get("$ref", "").rpartition("/")[2]
            assert field.get("description") or schema["$defs"][target]["description"], name


@pytest.mark.parametrize("name", sorted(documents()))
def test_generated_reference_is_current(name: str) -> None:
    assert (REFERENCE / name).read_text() == documents()[name], "run `make golden`"


def test_one_message_per_mistake() -> None:
    text = (
        "name: Skills\nsource: org/x\nhardwar: {}\nslo: {ttft_p95: 1}\n"
        "runtime: vlm\nhardware: {accelerator: nvidia-l40, count: 0}\n"
    )
    found = {path: (what, nearest) for path, what, _, nearest in _mistakes(text)}
    assert found == {
        "name": ('"Skills"', ""),
        "source": ('"org/x"', ""),
        "hardware.accelerator": ('"nvidia-l40"', "nvidia-l40s"),
        "hardware.count": ("0", ""),
        "runtime": ('"vlm"', "vllm"),
        "slo.ttft_p95": ("an unknown field", "ttft_p95_s"),
        "hardwar": ("an unknown field", "hardware"),
    }


@pytest.mark.parametrize(
    ("text", "path", "found", "allowed"),
    [
        ("", "(document)", "nothing", "a mapping"),
        ("- a", "(document)", "list", "a mapping"),
        ("a: [", "line 1, column 5", "end", "valid YAML"),
        ("name: a\nname: b\n", "line 2, column 1", "'name' stands twice", "each key once"),
        ("source: hf://a/b", "name", "nothing", "lower-case letters"),
        (MINIMAL + "target: lokal", "target", '"lokal"', "local, or an object"),
        (MINIMAL + "replicas: 1.5", "replicas", "1.5", "integer"),
        (MINIMAL + "rollout: {steps: [10, 200]}", "rollout.steps.1", "200", "99"),
        (MINIMAL + "rollout: {steps: [25, 10]}", "rollout", "[25, 10]", "steps that rise"),
        (
            MINIMAL + "rollout: {metrics: {fun: {kind: score, tolerate: 0.1, reject: 0.2, D: 1}}}",
            "rollout.metrics.fun.D",
            "an unknown field",
            "kind, tolerate, reject",
        ),
        (MINIMAL + "policy: {allow_pickle: 1}", "policy.allow_pickle", "1", "boolean"),
        (MINIMAL + "target: {kserve: {mode: Raw}}", "target.kserve.mode", '"Raw"', "standard"),
        (MINIMAL + "apiVersion: penstock/v2", "apiVersion", '"penstock/v2"', "penstock/v1"),
    ],
)
def test_a_mistake_says_what_where_and_what_is_allowed(
    text: str, path: str, found: str, allowed: str
) -> None:
    (mistake,) = _mistakes(text)
    assert mistake[0] == path
    assert found in mistake[1]
    assert allowed in mistake[2]


def test_data_paths_start_at_the_folder_of_the_file() -> None:
    spec = parse_spec(MINIMAL + "data: {evaluate: e.jsonl, train: /abs/t.jsonl}", folder="/specs")
    assert spec.data.evaluate == str(Path("/specs/e.jsonl"))
    assert spec.data.train == "/abs/t.jsonl"
    assert spec.data.calibrate is None
