from __future__ import annotations

import json
from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.trtllm.key import BuildKey, key_of, mismatch, refuse_mismatch
from components.trtllm.model import RuntimeImage, Shape
from penstock.core.errors import ConfigurationError, EngineRefused
from penstock.core.identity import Digest
from penstock.core.recipes import Calibration, ModelOptFp8
from tests.unit.components.trtllm.cases import NODE, WEIGHTS, build, key, runtime

_OTHERS: list[dict[str, Any]] = [
    {"weights": Digest.of(b"others")},
    {"recipe": Digest.of(b"other")},
    {"strategy": "checkpoint"},
    {"scheme": "nvfp4"},
    {"kv_dtype": "fp8"},
    {"plugins": ()},
    {"image": "sha256:other"},
    {"version": "1.2.0"},
    {"node": None},
    *({"shape": Shape(**{name.name: 2})} for name in fields(Shape)),
    *(
        {"node": replace(NODE, **change)}
        for change in (
            {"gpu": "NVIDIA H200"},
            {"sm": 89},
            {"driver": 570},
            {"cuda": 12},
            {"os": "windows"},
            {"arch": "aarch64"},
        )
    ),
]


def test_everything_that_matters_makes_another_key() -> None:
    first = key()
    digests = {first.digest} | {replace(first, **other).digest for other in _OTHERS}
    assert len(digests) == len(_OTHERS) + 1
    tested = {name for other in _OTHERS for name in other}
    assert tested == {field.name for field in fields(BuildKey)}


@given(st.sampled_from(_OTHERS), st.sampled_from(_OTHERS))
def test_a_key_is_read_as_it_was_written(one: dict[str, Any], two: dict[str, Any]) -> None:
    made = replace(key(), **(one | two))
    assert BuildKey.from_json(made.to_json()) == made
    assert (
        BuildKey.from_json(json.dumps(json.loads(made.to_json()), indent=3)).digest == made.digest
    )


def test_a_key_stays_the_same_over_releases() -> None:
    body = json.loads(key().to_json())
    assert key().to_json() == json.dumps(body, sort_keys=True, separators=(",", ":"))
    assert key().digest.short == "eb37228e6023"


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", '{"node": 1}'])
def test_what_is_no_key_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="not a build key"):
        BuildKey.from_json(text)


def test_a_tag_with_a_digest_is_identified_by_the_digest() -> None:
    digest = f"sha256:{'a' * 64}"
    pinned = RuntimeImage.parse(f"nvcr.io/nvidia/tensorrt-llm/release:1.2.1@{digest}")
    moved = RuntimeImage.parse(f"mirror/release:1.2.1@{digest}")
    assert key(image=pinned).image == digest
    assert key(image=pinned) == key(image=moved)


def test_an_engine_runs_where_it_was_built_for() -> None:
    assert mismatch(key(), runtime()) == []
    assert mismatch(key(), runtime(gpu="NVIDIA H200")) == []  # the same architecture


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"sm": 89}, "GPU architecture: built for 90, here 89"),
        ({"driver": 570}, "driver: built for 580, here 570"),
        ({"cuda": 12}, "CUDA: built for 13, here 12"),
        ({"arch": "aarch64"}, "CPU: built for x86_64, here aarch64"),
        ({"os": "windows"}, "OS: built for linux, here windows"),
    ],
)
def test_an_engine_for_another_node_is_refused(change: dict[str, Any], said: str) -> None:
    assert mismatch(key(), runtime(**change)) == [said]
    with pytest.raises(EngineRefused, match=said):
        refuse_mismatch(key(), runtime(**change))


def test_every_difference_is_named() -> None:
    elsewhere = replace(runtime(sm=89, driver=570), image="other", version="1.2.0")
    assert len(mismatch(key(), elsewhere)) == 4


def test_a_checkpoint_runs_on_every_gpu_that_has_its_precision() -> None:
    checkpoint = key(strategy="checkpoint")
    assert checkpoint.node is None
    assert checkpoint == key_of(build(strategy="checkpoint"), WEIGHTS, None)
    assert mismatch(checkpoint, runtime(sm=89, driver=570)) == []
    (why,) = mismatch(checkpoint, runtime(gpu="NVIDIA A100-SXM4-80GB", sm=80))
    assert why.startswith("GPU: modelopt-fp8: FP8 arithmetic needs SM 89")
    assert mismatch(checkpoint, replace(runtime(), version="1.3.0", image="x"))


def test_an_engine_has_no_key_without_its_node() -> None:
    with pytest.raises(ConfigurationError, match="driver and CUDA"):
        key_of(build(), WEIGHTS, None)


def test_the_recipe_and_what_calibrated_it_are_part_of_the_key() -> None:
    fewer = key(recipe=ModelOptFp8(calibration=Calibration(samples=64)))
    assert len({each.recipe for each in (key(), fewer, key(calibration="mine"))}) == 3
    prompts = Digest.of(b"prompts")
    here, there = (key_of(build(calibration=at), WEIGHTS, NODE, prompts) for at in ("/a", "/b"))
    assert here == there != key(calibration="/a")
    nothing = [key(recipe=None, calibration=at).recipe for at in ("/a", "/b")]
    assert nothing[0] == nothing[1]
