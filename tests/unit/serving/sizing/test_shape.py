from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.core.errors import ConfigurationError
from serving.sizing.attention import Layer, layers_of
from serving.sizing.shape import artifact_of, shape_of
from serving.sizing.weights import Tensor
from tests.unit.serving.sizing.checkpoints import tensors

LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "num_hidden_layers": 4,
    "vocab_size": 100,
    "max_position_embeddings": 512,
}


_STORED = tensors(LLAMA)


def _layers(**more: Any) -> tuple[Layer, ...]:
    text = {**LLAMA, **more}
    return layers_of(text, text["model_type"])


def _windows(layers: tuple[Layer, ...]) -> str:
    return "".join("w" if each.kind == "window" else "f" for each in layers)


def test_grouped_heads_keep_keys_and_values() -> None:
    assert _layers() == (Layer("full", 2, 16),) * 4
    assert _layers(head_dim=32)[0] == Layer("full", 2, 64)
    assert _layers(num_key_value_heads=None)[0].heads == 8


def test_a_latent_is_one_vector_for_all_heads() -> None:
    found = _layers(kv_lora_rank=512, qk_rope_head_dim=64)
    assert found[0] == Layer("latent", 1, 576)
    sparse = _layers(kv_lora_rank=512, qk_rope_head_dim=64, index_head_dim=128)
    assert sparse[0].index_bytes == 132


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"sliding_window": 4096, "model_type": "mistral"}, "wwww"),
        ({"sliding_window": None, "model_type": "mistral"}, "ffff"),
        ({"sliding_window": 4096, "model_type": "gemma2"}, "wfwf"),
        ({"sliding_window": 512, "sliding_window_pattern": 3, "model_type": "gemma3"}, "wwfw"),
        ({"sliding_window": 512, "use_sliding_window": False, "model_type": "qwen2"}, "ffff"),
        (
            {
                "sliding_window": 512,
                "use_sliding_window": True,
                "max_window_layers": 3,
                "model_type": "qwen2",
            },
            "fffw",
        ),
        (
            {
                "sliding_window": 128,
                "layer_types": ["sliding_attention", "full_attention"] * 2,
                "model_type": "gpt_oss",
            },
            "wfwf",
        ),
        ({"layer_types": ["chunked_attention", "full_attention"] * 2}, "ffff"),
        (
            {
                "sliding_window": 128,
                "hybrid_layer_pattern": [0, 1, 1, 0],
                "model_type": "mimo_v2_flash",
            },
            "fwwf",
        ),
    ],
)
def test_which_layers_see_a_window(more: dict[str, Any], expected: str) -> None:
    assert _windows(_layers(**more)) == expected


def test_layers_with_a_window_may_have_heads_of_their_own() -> None:
    found = _layers(
        sliding_window=128,
        hybrid_layer_pattern=[0, 1, 0, 1],
        head_dim=192,
        v_head_dim=128,
        swa_num_key_value_heads=4,
        swa_head_dim=192,
        swa_v_head_dim=128,
    )
    assert found[0] == Layer("full", 2, 320)
    assert found[1] == Layer("window", 4, 320, window=128)


def test_a_delta_net_keeps_a_state_whatever_the_length() -> None:
    found = _layers(
        full_attention_interval=4,
        linear_num_key_heads=2,
        linear_key_head_dim=8,
        linear_num_value_heads=4,
        linear_value_head_dim=8,
        linear_conv_kernel_dim=4,
        mamba_ssm_dtype="float32",
    )
    assert [each.kind for each in found] == ["state", "state", "state", "full"]
    assert found[0].state_bytes == 4 * 8 * 8 * 4 + 3 * (2 * 16 + 32) * 2


def test_a_state_that_is_not_known_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="mamba keep a state"):
        _layers(layer_types=["mamba"] * 4)
    with pytest.raises(ConfigurationError, match="linear_num_key_heads"):
        _layers(layer_types=["linear_attention"] * 4)


def test_a_tied_head_is_not_loaded_twice() -> None:
    stored = [*tensors(LLAMA)]
    untied = shape_of(LLAMA, stored)
    tied = shape_of({**LLAMA, "tie_word_embeddings": True}, stored)
    assert untied.parameters - tied.parameters == 100 * 64
    assert untied.weights.bytes - tied.weights.bytes == 100 * 64 * 2
    assert tied.active == tied.parameters
    assert untied.active == untied.parameters - 100 * 64  # the table is only looked up


def test_what_lies_beside_the_language_model_is_told() -> None:
    config = {"model_type": "qwen3_vl", "text_config": LLAMA, "tie_word_embeddings": False}
    shape = shape_of(
        config,
        [
            *tensors(config),
            Tensor("model.visual.blocks.0.attn.qkv.weight", "BF16", (10, 10), 200),
            Tensor("mtp.layers.0.mlp.up_proj.weight", "BF16", (10, 10), 200),
        ],
    )
    assert (shape.weights.other, shape.weights.draft) == (200, 200)
    assert "beside the language model" in shape.guesses[-1]
    assert shape.layers == (Layer("full", 2, 16),) * 4


def test_an_unknown_architecture_is_sized_and_said_to_be_unknown() -> None:
    shape = shape_of({**LLAMA, "model_type": "zebra"}, tensors(LLAMA))
    assert "'zebra'" in shape.guesses[0]
    assert not shape_of(LLAMA, tensors(LLAMA)).guesses


def test_scaled_positions_make_the_context_longer_once() -> None:
    yarn = {"factor": 4, "original_max_position_embeddings": 512}
    assert shape_of({**LLAMA, "rope_scaling": yarn}, tensors(LLAMA)).context == 2048
    told = {**LLAMA, "max_position_embeddings": 2048, "rope_scaling": yarn}
    assert shape_of(told, tensors(LLAMA)).context == 2048


def test_what_is_missing_is_named() -> None:
    with pytest.raises(ConfigurationError, match="num_attention_heads: found None"):
        shape_of({k: v for k, v in LLAMA.items() if k != "num_attention_heads"}, tensors(LLAMA))
    with pytest.raises(ConfigurationError, match="no weights"):
        shape_of(LLAMA, [])


_GROUP = {"num_bits": 4, "type": "int", "symmetric": True, "group_size": 128}


@pytest.mark.parametrize(
    ("kept", "modelopt", "expected"),
    [
        ({}, {}, ("bf16", (1, 1))),
        ({"quant_method": "fp8", "weight_block_size": [128, 64]}, {}, ("fp8-block", (128, 64))),
        ({"quant_method": "fp8"}, {}, ("fp8-dynamic", (1, 1))),
        ({"quant_method": "mxfp4"}, {}, ("mxfp4", (1, 1))),
        ({"quant_method": "gptq", "bits": 4, "group_size": 128}, {}, ("gptq", (1, 128))),
        ({}, {"quantization": {"quant_algo": "NVFP4"}}, ("modelopt-nvfp4", (1, 1))),
        ({"quant_method": "modelopt", "quant_algo": "FP8"}, {}, ("modelopt-fp8", (1, 1))),
        (
            {"quant_method": "compressed-tensors", "config_groups": {"g": {"weights": _GROUP}}},
            {},
            ("w4a16", (1, 128)),
        ),
        (
            {
                "quant_method": "compressed-tensors",
                "config_groups": {"g": {"weights": {**_GROUP, "symmetric": False}}},
            },
            {},
            ("awq", (1, 128)),
        ),
        (
            {
                "quant_method": "compressed-tensors",
                "config_groups": {"g": {"weights": {"num_bits": 8, "type": "int"}}},
            },
            {},
            ("w8a8", (1, 1)),
        ),
    ],
)
def test_formats_have_the_names_of_the_matrix(
    kept: dict[str, Any], modelopt: dict[str, Any], expected: tuple[str, tuple[int, int]]
) -> None:
    assert artifact_of(kept, modelopt) == expected


_JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 10**6),
    st.text(max_size=3),
    st.lists(st.integers(), max_size=3),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)
_FIELDS = (
    *LLAMA,
    *("head_dim", "v_head_dim", "sliding_window", "layer_types", "rope_scaling", "text_config"),
    *("num_experts", "moe_intermediate_size", "num_experts_per_tok", "kv_lora_rank"),
    *("quantization_config", "full_attention_interval", "hybrid_layer_pattern"),
)


@settings(max_examples=100)
@given(st.dictionaries(st.sampled_from(_FIELDS), _JUNK, min_size=1, max_size=3))
def test_nonsense_is_refused_or_sized_and_never_a_traceback(junk: dict[str, Any]) -> None:
    try:
        shape = shape_of({**LLAMA, **junk}, _STORED)
    except ConfigurationError:
        return
    assert shape.weights.bytes > 0


def test_packed_weights_count_as_what_they_are() -> None:
    packed = [
        Tensor("model.layers.0.mlp.up_proj.weight_packed", "I32", (128, 8), 4096),
        Tensor("model.layers.0.mlp.up_proj.weight_scale", "BF16", (128, 1), 256),
        Tensor("model.layers.0.mlp.up_proj.weight_shape", "I64", (2,), 16),
    ]
    assert shape_of({**LLAMA, "num_hidden_layers": 1}, packed).parameters == 128 * 64
