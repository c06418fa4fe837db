"""Recipes as values: one per artifact, read from documents, told apart by their digests."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from penstock.core.errors import RecipeImpossible
from penstock.core.matrix_rows import ARTIFACTS
from penstock.core.recipes import (
    DEFAULTS,
    SHORT_NAMES,
    W4A16,
    Awq,
    Calibration,
    Fp8,
    Fp8Dynamic,
    ModelOptInt4Awq,
    parse_recipe,
    recipe_of,
)


def test_every_artifact_that_is_quantized_has_a_recipe() -> None:
    assert set(DEFAULTS) == set(ARTIFACTS) - {"bf16", "tensorrt-engine"}
    for name, recipe in DEFAULTS.items():
        assert recipe.name == name
        assert recipe.artifacts == (name,)
        assert int(recipe.bits) == ARTIFACTS[name].bits


@pytest.mark.parametrize("name", SHORT_NAMES)
def test_a_document_gives_the_recipe_back(name: str) -> None:
    recipe = recipe_of(name)
    assert parse_recipe(recipe.model_dump()) == recipe
    assert parse_recipe(recipe.model_dump(mode="json")) == recipe


def test_short_names_mean_what_people_expect() -> None:
    assert recipe_of("fp8") == Fp8Dynamic()
    assert recipe_of("fp8-static") == Fp8()
    assert recipe_of("int4") == W4A16(method="rtn", group_size=128)
    assert recipe_of("gptq").needs_calibration
    assert not recipe_of("int4").needs_calibration


@pytest.mark.parametrize(
    ("name", "near"), [("fp88", "fp8"), ("AWQ", "awq"), ("int-4", "int4"), ("nvpf4", "nvfp4")]
)
def test_an_unknown_name_is_refused_with_the_nearest(name: str, near: str) -> None:
    with pytest.raises(RecipeImpossible, match=f"did you mean '{near}'") as raised:
        recipe_of(name)
    assert "modelopt-int4-awq" in str(raised.value)


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({}, "scheme: found 'nothing'; allowed: fp8-dynamic, fp8"),
        ({"scheme": "awk"}, "did you mean 'awq'"),
        ({"scheme": "awq", "groups": 64}, "groups: awq has no such field; allowed: ignore"),
        (
            {"scheme": "awq", "group_size": 48},
            "group_size: found 48; Input should be 32, 64",
        ),
        ({"scheme": "fp8-dynamic", "calibration": {}}, "fp8-dynamic has no such field"),
        ({"scheme": "w4a16", "calibration": {}}, "method rtn rounds without data"),
        ({"scheme": "w4a16", "kv_cache": "fp8"}, "kv_cache: w4a16 has no such field"),
        ({"scheme": "fp8", "calibration": {"samples": 0}}, "calibration.samples: found 0"),
        ({"scheme": "fp8", "ignore": "lm_head"}, 'ignore: found "lm_head"'),
        ({"scheme": "modelopt-int4-awq", "group_size": 32}, "Input should be 64 or 128"),
    ],
)
def test_a_mistake_says_where_and_what_is_allowed(body: dict[str, Any], told: str) -> None:
    with pytest.raises(RecipeImpossible) as raised:
        parse_recipe(body, where="precision")
    assert told in str(raised.value)
    assert str(raised.value).startswith("precision: ")


def test_every_mistake_is_told() -> None:
    with pytest.raises(RecipeImpossible) as raised:
        parse_recipe({"scheme": "awq", "group_size": 1, "calibration": {"samples": 0, "n": 1}})
    for path in ("group_size", "calibration.samples", "calibration.n"):
        assert f"{path}: " in str(raised.value)


def test_the_digest_is_of_what_is_meant_not_of_how_it_was_written() -> None:
    written_out = {"scheme": "w4a16", "method": "gptq", "calibration": {"samples": 128}}
    assert parse_recipe(written_out).digest == recipe_of("gptq").digest
    assert len({recipe.digest for recipe in DEFAULTS.values()}) == len(DEFAULTS)
    assert Awq(group_size=64).digest != Awq().digest
    assert Fp8Dynamic().digest.short == "86a22b4ede83", "digests are in registries: they stay"


def test_bits_count_what_the_groups_store() -> None:
    assert W4A16(group_size=64).bits == 4.25
    assert Awq(group_size=32).bits == 4.625
    assert ModelOptInt4Awq().bits == 4.25


def test_a_mixed_recipe_needs_an_engine_that_runs_both() -> None:
    mixed = W4A16(fp8_layers=("*.down_proj",), ignore=("lm_head", "a", "b"))
    assert mixed.artifacts == ("w4a16", "fp8-dynamic")
    assert mixed.label == "w4a16 rtn g128 +2 kept +1 fp8"


def test_a_recipe_never_changes() -> None:
    recipe = Fp8(calibration=Calibration(samples=4))
    with pytest.raises(ValidationError):
        recipe.kv_cache = "fp8"  # type: ignore[misc] # that it is refused is what is tested
    assert recipe.label == "fp8"
    assert Fp8(kv_cache="fp8").label == "fp8 kv-fp8"
