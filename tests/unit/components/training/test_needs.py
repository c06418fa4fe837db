"""What a training needs is known before it begins."""

from __future__ import annotations

import pytest

from components.training.needs import disk_bytes, linear_layers, targeted, trained_parameters
from penstock.core.errors import ConfigurationError
from penstock.core.training import Adapter, Training

SHAPES: dict[str, tuple[int, ...]] = {
    "model.embed_tokens.weight": (100, 8),
    "model.layers.0.self_attn.q_proj.weight": (8, 8),
    "model.layers.0.self_attn.q_proj.bias": (8,),
    "model.layers.0.mlp.up_proj.weight": (16, 8),
    "model.layers.1.mlp.up_proj.weight": (16, 8),
    "model.norm.weight": (8,),
    "lm_head.weight": (100, 8),
}


def test_adapters_stand_beside_linear_layers_but_the_output() -> None:
    names = [layer.name for layer in linear_layers(SHAPES)]
    assert names == [
        "model.layers.0.mlp.up_proj",
        "model.layers.0.self_attn.q_proj",
        "model.layers.1.mlp.up_proj",
    ]


def test_modules_are_found_by_the_end_of_their_names() -> None:
    layers = linear_layers(SHAPES)
    assert len(targeted(Adapter(), layers)) == 3
    assert len(targeted(Adapter(target_modules=["up_proj"]), layers)) == 2
    chosen = targeted(Adapter(target_modules=["layers.1.mlp.up_proj"]), layers)
    assert [layer.name for layer in chosen] == ["model.layers.1.mlp.up_proj"]


@pytest.mark.parametrize("name", ["up_prj", "lm_head", "proj", "embed_tokens"])
def test_a_module_that_is_not_there_is_refused_with_what_is(name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"no linear layer '{name}'.*q_proj, up_proj"):
        targeted(Adapter(target_modules=["q_proj", name]), linear_layers(SHAPES))


def test_the_disk_holds_three_checkpoints_and_the_result() -> None:
    full, lora = Training(method="full"), Training(lora=Adapter(rank=2))
    every = 800 + 64 + 8 + 128 + 128 + 8 + 800
    assert trained_parameters(full, SHAPES) == every
    assert trained_parameters(lora, SHAPES) == 2 * (16 + 24 + 24)
    assert disk_bytes(full, SHAPES, 5) == every * 12 * 3 + 5
    assert disk_bytes(lora, SHAPES, 5) == 128 * 12 * 3 + 5
