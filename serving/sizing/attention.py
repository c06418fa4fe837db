"""What each layer keeps of the tokens it has seen: keys and values, a latent, or a state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from penstock.core.errors import ConfigurationError

Kind = Literal["full", "window", "latent", "state"]

_REFUSED = ("mamba", "ssm", "conv", "recurrent", "rwkv", "short_conv", "moe_mamba")
_PATTERN = {"gemma2": 2, "gemma3": 6, "gemma3_text": 6, "cohere2": 4}
"""Every so many layers one sees everything, where config.json of the time does not say which."""


@dataclass(frozen=True, slots=True)
class Layer:
    """The cache of one layer."""

    kind: Kind
    heads: int = 1
    """Of keys and values; 1 for a latent, which every device holds whole."""

    width: int = 0
    """Values per head and token, keys and values together."""

    window: int = 0
    """Tokens that a window keeps."""

    index_bytes: int = 0
    """Per token beside it: the keys of a sparse attention's indexer."""

    state_bytes: int = 0
    """Per sequence, whatever its length."""


def layers_of(text: Mapping[str, Any], kind: str) -> tuple[Layer, ...]:
    """Return the layers of a language model's configuration.

    Raises:
        ConfigurationError: It keeps a state whose size is not known here.
    """
    count = int(text["num_hidden_layers"])
    if text.get("kv_lora_rank"):
        return (_latent(text),) * count
    types = _types(text, kind, count)
    strange = sorted({t for t in types if t in _REFUSED})
    if strange or text.get("mamba_d_state") or text.get("hybrid_override_pattern"):
        raise ConfigurationError(
            f"{kind or 'this model'}: layers of kind {', '.join(strange) or 'state space'} keep a"
            " state that sizing does not know",
            hint="size it by its maker's recipe, and name hardware.count yourself",
        )
    full, windowed = _heads(text), _heads(text, "swa_")
    if kind == "gemma4":
        full = _global_heads(text)
    window = int(text.get("sliding_window") or 0)
    found = []
    for each in types:
        if each == "sliding_attention" and window:
            found.append(Layer("window", *windowed, window=window))
        elif each == "linear_attention":
            found.append(Layer("state", state_bytes=_delta_state(text)))
        else:  # chunked attention too: engines may keep all of it
            found.append(Layer("full", *full))
    return tuple(found)


def _types(text: Mapping[str, Any], kind: str, count: int) -> list[str]:
    """Return the kind of each layer, as transformers 5 names them."""
    listed = text.get("layer_types") or text.get("layers_block_type")
    if isinstance(listed, list) and len(listed) == count:
        return [str(each) for each in listed]
    pattern = text.get("hybrid_layer_pattern")
    if isinstance(pattern, list) and len(pattern) == count:  # MiMo-V2: 1 is a window
        return ["sliding_attention" if each else "full_attention" for each in pattern]
    if interval := int(text.get("full_attention_interval") or 0):
        return [_every(i, interval, "linear_attention") for i in range(count)]
    return _windows(text, kind, count)


def _windows(text: Mapping[str, Any], kind: str, count: int) -> list[str]:
    """Return which layers see a window only, where config.json does not list them."""
    if not text.get("sliding_window"):
        return ["full_attention"] * count
    if "use_sliding_window" in text:  # Qwen 2 and 3: the layers from max_window_layers on
        first = int(text.get("max_window_layers") or 0) if text["use_sliding_window"] else count
        return ["full_attention" if i < first else "sliding_attention" for i in range(count)]
    every = int(text.get("sliding_window_pattern") or text.get("_sliding_window_pattern") or 0)
    every = every or _PATTERN.get(kind, 0)
    if every:
        return [_every(i, every, "sliding_attention") for i in range(count)]
    return ["sliding_attention"] * count  # Mistral 7B v0.1


def _every(index: int, every: int, otherwise: str) -> str:
    return otherwise if (index + 1) % every else "full_attention"


def _heads(text: Mapping[str, Any], prefix: str = "") -> tuple[int, int]:
    """Return heads of keys and values, and values per head and token."""
    attention = int(text["num_attention_heads"])
    plain = int(text.get("num_key_value_heads") or attention)
    heads = int(text.get(f"{prefix}num_key_value_heads") or plain)
    usual = int(text.get("head_dim") or int(text["hidden_size"]) // attention)
    keys = int(text.get(f"{prefix}head_dim") or usual)
    values = int(text.get(f"{prefix}v_head_dim") or text.get("v_head_dim") or keys)
    return heads, keys + values


def _global_heads(text: Mapping[str, Any]) -> tuple[int, int]:
    """Return those of Gemma 4's layers that see everything; keys and values are both kept."""
    heads, width = _heads(text)
    each = int(text.get("global_head_dim") or width // 2)
    return int(text.get("num_global_key_value_heads") or heads), 2 * each


def _latent(text: Mapping[str, Any]) -> Layer:
    """Return multi-head latent attention: one vector for all heads (DeepSeek-V2, section 2.1).

    DeepSeek-V3.2's indexer keeps a key in FP8 and a scale of 4 bytes per 128 of its values (vLLM
    0.33.0, `DeepseekV32IndexerCache`).
    """
    width = int(text["kv_lora_rank"]) + int(text.get("qk_rope_head_dim") or 0)
    index = int(text.get("index_head_dim") or 0)
    return Layer("latent", 1, width, index_bytes=index + index // 128 * 4)


def _delta_state(text: Mapping[str, Any]) -> int:
    """Return a gated delta net's state: a matrix per value head, and what its convolution needs.

    vLLM 0.33.0, `MambaStateShapeCalculator.gated_delta_net_state_shape`; the matrix is float32
    where `mamba_ssm_dtype` says so, else 16 bits, the convolution's part 16 bits.
    """
    try:
        keys = int(text["linear_num_key_heads"]) * int(text["linear_key_head_dim"])
        values = int(text["linear_num_value_heads"]) * int(text["linear_value_head_dim"])
        kernel, head = int(text["linear_conv_kernel_dim"]), int(text["linear_key_head_dim"])
    except KeyError as problem:
        raise ConfigurationError(
            f"config.json: {problem}: missing, so the state of linear attention is not known",
            hint="size it by its maker's recipe, and name hardware.count yourself",
        ) from problem
    matrix = 4 if text.get("mamba_ssm_dtype") == "float32" else 2
    return values * head * matrix + (kernel - 1) * (2 * keys + values) * 2
