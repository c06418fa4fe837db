"""What a recipe means for a checkpoint, known before anything is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from components.quantization.calibration import tokens_of
from components.quantization.fit import (
    FLOOR_BYTES,
    Machine,
    Plan,
    fitting_group_size,
    groups_of,
    linear_layers,
    plan,
)
from components.quantization.modelopt import packed
from penstock.core.errors import DataRefused, RecipeImpossible
from penstock.core.recipes import (
    W4A16,
    Awq,
    Calibration,
    Fp8,
    Fp8Block,
    Fp8Dynamic,
    ModelOptNvfp4,
    Nvfp4,
    Recipe,
)
from registry.conformance.reading import read
from tests.unit.components.quantization.parents import make_parent

LARGE = Machine(1 << 40)
PROMPTS = ["a b c"]


def planned(folder: Path, recipe: Recipe, machine: Machine = LARGE) -> Plan:
    return plan(read(folder), recipe, PROMPTS, machine)


def test_a_plan_names_what_is_quantized_and_what_it_needs(tmp_path: Path) -> None:
    parent = make_parent(tmp_path / "parent")
    found = planned(parent, Fp8Dynamic())
    assert len(found.layers) == 14
    assert found.ignore == ("lm_head",)
    size = sum(t.size for t in read(parent).tensors.values())
    assert found.loaded_bytes == size
    assert found.memory_bytes == FLOOR_BYTES["llm-compressor"] + int(1.3 * size)
    linear = sum(a * b for n, (a, b) in linear_layers(read(parent)).items() if n != "lm_head")
    assert found.disk_bytes == size - linear


def test_float32_weights_are_loaded_in_the_configurations_type(tmp_path: Path) -> None:
    wide = make_parent(tmp_path / "wide", dtype="float32", torch_dtype="float32")
    narrow = make_parent(tmp_path / "narrow")
    assert (
        planned(wide, Fp8Dynamic()).loaded_bytes == 2 * planned(narrow, Fp8Dynamic()).loaded_bytes
    )


def test_a_tied_head_stays_as_it_is(tmp_path: Path) -> None:
    parent = make_parent(tmp_path / "parent", tie_word_embeddings=True)
    assert planned(parent, W4A16(group_size=64)).ignore == ("lm_head",)
    with pytest.raises(RecipeImpossible, match="lm_head is not in ignore, and it is tied") as told:
        planned(parent, W4A16(group_size=64, ignore=("*.down_proj",)))
    assert told.value.hint == "add lm_head to ignore"


@pytest.mark.parametrize(
    ("changes", "recipe", "told"),
    [
        ({}, W4A16(), r"groups of 128 do not divide the 192 inputs of .*: 32 or 64"),
        ({}, Awq(), r"groups of 128 do not divide"),
        (
            {"hidden_size": 96 + 24, "num_attention_heads": 5},
            Nvfp4(),
            r"groups of 16 do not divide",
        ),
        ({}, Fp8Block(), r"groups of 128 do not divide the 192 inputs .* \(12 such layers\)"),
        ({"dtype": "float16"}, Nvfp4(), r"computes in float16; allowed: bfloat16"),
        ({"num_local_experts": 8}, Fp8Dynamic(), r"mixture of experts \(num_local_experts=8\)"),
        (
            {"architectures": ["BloomForCausalLM"]},
            Fp8Dynamic(),
            r"Bloom\w+ was never tried",
        ),
        ({"architectures": None}, Fp8Dynamic(), r"none stated was never tried; allowed: Llama"),
        ({"quantization_config": {"quant_method": "gptq"}}, Fp8Dynamic(), r"already \(gptq\)"),
        ({}, ModelOptNvfp4(), r"needs a GPU"),
        ({"max_position_embeddings": 256}, Fp8(), r"length is 512 tokens, the model's context 256"),
        ({}, Fp8Dynamic(ignore=("lm_head", "*.dwn_proj")), r"'\*.dwn_proj' matches no layer"),
        ({}, Fp8Dynamic(ignore=("*",)), r"ignore leaves no layer"),
        ({}, Fp8Dynamic(ignore=("lm_head", "*.q_proj")), r"computed as one layer by engines"),
        ({}, W4A16(group_size=64, fp8_layers=("*.up_proj",)), r"computed as one layer by engines"),
    ],
)
def test_what_cannot_be_made_is_refused_with_the_reason(
    tmp_path: Path, changes: dict[str, Any], recipe: Recipe, told: str
) -> None:
    parent = make_parent(tmp_path / "parent", **changes)
    with pytest.raises(RecipeImpossible, match=told) as raised:
        planned(parent, recipe)
    assert raised.value.hint or "ignore leaves" in told


def test_too_little_memory_is_said_beforehand(tmp_path: Path) -> None:
    parent = make_parent(tmp_path / "parent")
    needed = planned(parent, Fp8Dynamic()).memory_bytes
    planned(parent, Fp8Dynamic(), Machine(needed))
    with pytest.raises(RecipeImpossible, match=r"needs about 1\.\d GB of memory .* GB are free"):
        planned(parent, Fp8Dynamic(), Machine(needed - 1))


def test_spared_layers_do_not_have_to_be_divided(tmp_path: Path) -> None:
    parent = make_parent(tmp_path / "parent", intermediate_size=500)
    odd = ("*.down_proj",)
    with pytest.raises(RecipeImpossible, match=r"500 inputs of .*down_proj \(2 such layers\)"):
        planned(parent, W4A16(group_size=64))
    assert len(planned(parent, W4A16(group_size=64, ignore=("lm_head", *odd))).layers) == 12
    mixed = planned(parent, W4A16(group_size=64, fp8_layers=odd))
    assert mixed.fp8_layers == ("model.layers.0.mlp.down_proj", "model.layers.1.mlp.down_proj")


def test_the_next_smaller_group_size_that_divides_is_found(tmp_path: Path) -> None:
    parent = read(make_parent(tmp_path / "parent"))
    assert fitting_group_size(parent, 128) == 64
    assert fitting_group_size(parent, 32) == 32
    odd = read(make_parent(tmp_path / "odd", intermediate_size=500))
    assert fitting_group_size(odd, 128) is None


def test_layers_that_engines_fuse_are_one_group_in_the_models_order(tmp_path: Path) -> None:
    layers = [
        name for name in linear_layers(read(make_parent(tmp_path / "p"))) if name != "lm_head"
    ]
    groups = groups_of([*reversed(layers), "model.layers.10.mlp.down_proj"])
    assert [len(group) for group in groups] == [1, 2, 1, 3, 1, 2, 1, 3, 1]
    assert groups[-1] == ("model.layers.10.mlp.down_proj",), "10 comes after 1, not before 2"


def test_prompts_that_cannot_calibrate_are_refused(tmp_path: Path) -> None:
    parent = make_parent(tmp_path / "parent")
    with pytest.raises(DataRefused, match="the calibration set is empty") as raised:
        plan(read(parent), Fp8(), [], LARGE)
    assert "data.calibrate" in raised.value.hint
    with pytest.raises(DataRefused, match="prompt 2 has no token"):
        tokens_of(parent, ["a", " "], Calibration())
    assert plan(read(parent), Fp8Dynamic(), [], LARGE).layers, "needs none"


def test_calibration_is_bounded_in_number_and_length(tmp_path: Path) -> None:
    parent = make_parent(tmp_path / "parent")
    assert tokens_of(parent, ["a b c", "d", "a"], Calibration(samples=2, length=2)) == [[3, 4], [6]]


def test_short_prompts_share_a_row_and_none_is_torn() -> None:
    assert packed([[1, 2], [3], [4, 5], [6]], 3) == [[1, 2, 3], [4, 5, 6]]
    assert packed([[1, 2, 3], [4]], 3) == [[1, 2, 3], [4]]
    assert packed([], 3) == []
