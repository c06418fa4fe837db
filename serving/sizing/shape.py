"""What decides about memory, read from `config.json` and the headers of the weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from penstock.core.errors import ConfigurationError
from serving.sizing.attention import Layer, layers_of
from serving.sizing.weights import Header, Weights, weights_of

KNOWN = frozenset(
    "llama llama4 mixtral qwen3 qwen3_moe gpt_oss deepseek_v3 deepseek_v32 kimi_k2 minimax_m2"
    " glm_moe_dsa".split()
)
"""Values of `model_type` that were checked with published checkpoints: docs/reference/sizing.md."""

_MOST_LAYERS = 10_000


@dataclass(frozen=True, slots=True)
class Shape:
    """A model, as far as memory goes."""

    model_type: str
    hidden: int
    heads: int
    """Of queries: a tensor-parallel size must divide them."""

    layers: tuple[Layer, ...]
    vocab: int
    intermediate: int
    """Width of the widest dense MLP, or of one expert where all are experts."""

    experts: int
    experts_per_token: int
    expert_width: int
    context: int
    """Tokens of one sequence, at most; with the scaling of positions that the model came with."""

    weights: Weights
    artifact: str
    """Format of the weights, by its name in the matrix where it has one."""

    blocks: tuple[int, int] = (1, 1)
    """Outputs and inputs that share a scale; a device's part must be whole blocks."""

    split_widths: tuple[int, ...] = ()
    """Widths that tensor parallelism cuts, of weights that are scaled in blocks."""

    guesses: tuple[str, ...] = ()
    """What was not known and assumed, on the safe side."""

    facts: Mapping[str, int] = field(default_factory=dict)
    """Bytes of the checkpoint by type."""

    @property
    def parameters(self) -> int:
        """In the whole checkpoint, packed ones counted one by one."""
        return self.weights.parameters

    @property
    def active(self) -> int:
        """Parameters that one token passes, the embedding's table aside."""
        return self.weights.active(self.experts, self.experts_per_token)

    @property
    def quantized(self) -> bool:
        """Whether the checkpoint came with fewer than 16 bits."""
        return self.artifact != "bf16"

    @property
    def told(self) -> str:
        """A line about it."""
        active = f", {_short(self.active, 'M', 'B')} active" if self.experts else ""
        return (
            f"{self.model_type}, {_short(self.parameters, 'M', 'B')} parameters{active},"
            f" {self.artifact}, {_short(self.weights.bytes, 'MB', 'GB')}"
        )


def shape_of(
    config: Mapping[str, Any], tensors: Iterable[Header], modelopt: Mapping[str, Any] | None = None
) -> Shape:
    """Return a model's shape.

    Args:
        config: `config.json`.
        tensors: Headers of the weights.
        modelopt: `hf_quant_config.json`, where there is one.

    Raises:
        ConfigurationError: Something is missing that nothing can stand in for, or the architecture
            keeps a state that is not known here.
    """
    try:
        return _shape(config, tuple(tensors), modelopt or {})
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as problem:
        raise ConfigurationError(
            f"config.json: a value that sizing cannot read: {problem}",
            hint="size it by its maker's recipe, and name hardware.count yourself",
        ) from problem


def _shape(
    config: Mapping[str, Any], listed: tuple[Header, ...], modelopt: Mapping[str, Any]
) -> Shape:
    text = text_of(config)
    kind = str(config.get("model_type") or text.get("model_type") or "")
    heads = _number(text, "num_attention_heads")
    count = _number(text, "num_hidden_layers", most=_MOST_LAYERS)
    hidden = _number(text, "hidden_size")
    layers = layers_of(text, kind)
    tied = bool(config.get("tie_word_embeddings", text.get("tie_word_embeddings", False)))
    if not listed:
        raise ConfigurationError(
            "no weights: sizing needs the headers of safetensors files",
            hint="name a repository or a folder with *.safetensors",
        )
    kept = _quantization(config, text)
    artifact, blocks = artifact_of(kept, modelopt)
    experts = _experts(text)
    width = int(text.get("moe_intermediate_size") or (experts and text["intermediate_size"]) or 0)
    padding = _padding(hidden, width) if artifact == "mxfp4" else 1.0
    weights = weights_of(listed, layers=count, tied=tied, artifact=artifact, padding=padding)
    dense = int(
        text.get("intermediate_size_mlp") or text.get("intermediate_size") or width or 4 * hidden
    )
    guesses = [] if kind in KNOWN else [_unknown(kind)]
    if weights.other:
        guesses.append(
            f"{weights.other / 1e9:.2f} GB beside the language model (vision, audio): counted whole"
            " on every device"
        )
    return Shape(
        model_type=kind,
        hidden=hidden,
        heads=heads,
        layers=layers,
        vocab=_number(text, "vocab_size"),
        intermediate=dense,
        experts=experts,
        experts_per_token=int(
            text.get("num_experts_per_tok") or text.get("top_k_experts") or bool(experts)
        ),
        expert_width=width,
        context=_context(text),
        weights=weights,
        artifact=artifact,
        blocks=blocks,
        split_widths=_split_widths(text, width, dense) if blocks != (1, 1) else (),
        guesses=tuple(guesses),
        facts=weights.by_dtype,
    )


def text_of(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the configuration of the language model, inside a multimodal one too."""
    inner = config.get("text_config") or config.get("llm_config")
    return inner if isinstance(inner, Mapping) else config


def artifact_of(
    kept: Mapping[str, Any], modelopt: Mapping[str, Any]
) -> tuple[str, tuple[int, int]]:
    """Return the format of the weights, and outputs and inputs per block of a scale.

    The name is that of `penstock.core.matrix_rows.ARTIFACTS` where the matrix knows the format.
    """
    inner: Mapping[str, Any] = modelopt.get("quantization") or modelopt
    algorithm = str(inner.get("quant_algo") or kept.get("quant_algo") or "").upper()
    if algorithm:
        names = {
            "FP8": "modelopt-fp8",
            "NVFP4": "modelopt-nvfp4",
            "W4A16_AWQ": "modelopt-int4-awq",
            "W4A8_AWQ": "modelopt-w4a8-awq",
        }
        return names.get(algorithm, f"modelopt {algorithm}"), (1, 1)
    method = str(kept.get("quant_method", ""))
    if not method:
        return "bf16", (1, 1)
    if size := kept.get("weight_block_size"):
        return "fp8-block", _block(size)
    if method == "compressed-tensors":
        return _compressed(kept)
    if method == "fp8":
        return "fp8-dynamic", (1, 1)
    group = int(kept.get("group_size") or 1)
    return method, (1, max(group, 1))


def _block(size: Any) -> tuple[int, int]:
    return max(int(size[0]), 1), max(int(size[1]), 1)


def _compressed(kept: Mapping[str, Any]) -> tuple[str, tuple[int, int]]:
    groups = list((kept.get("config_groups") or {}).values())
    weights: Mapping[str, Any] = (groups[0].get("weights") or {}) if groups else {}
    inputs = (groups[0].get("input_activations") or {}) if groups else {}
    bits, kind = int(weights.get("num_bits") or 16), str(weights.get("type", ""))
    group = int(weights.get("group_size") or 1)
    if bits == 4 and kind == "float":
        return "nvfp4", (1, 1)
    if bits == 4:
        return ("w4a16" if weights.get("symmetric", True) else "awq"), (1, max(group, 1))
    if bits == 8 and kind == "float":
        if weights.get("strategy") == "block":
            size = weights.get("block_structure") or [128, 128]
            return "fp8-block", _block(size)
        return ("fp8-dynamic" if inputs.get("dynamic", True) else "fp8"), (1, 1)
    return ("w8a8" if bits == 8 else f"compressed-tensors {bits} bits"), (1, 1)


def _quantization(config: Mapping[str, Any], text: Mapping[str, Any]) -> Mapping[str, Any]:
    found = config.get("quantization_config") or text.get("quantization_config") or {}
    return found if isinstance(found, Mapping) else {}


def _padding(hidden: int, width: int) -> float:
    """Return what MXFP4's kernels add: vLLM 0.33.0, `fused_moe/oracle/mxfp4.py`, rounds up to 256.

    Checked with gpt-oss-120b: 60.8 GiB on disk, 65.97 in an H100 (vllm#23278).
    """
    return (-(-hidden // 256) * 256 / hidden) * (-(-width // 128) * 128 / width)


def _experts(text: Mapping[str, Any]) -> int:
    names = ("num_local_experts", "n_routed_experts", "num_experts")
    return next((int(text[name]) for name in names if text.get(name)), 0)


def _split_widths(text: Mapping[str, Any], width: int, dense: int) -> tuple[int, ...]:
    """Return what tensor parallelism cuts: the MLP's width, and that of each kind of expert.

    Where every layer has experts, `intermediate_size` may be left over from a dense sibling.
    """
    if not width:
        return (dense,)
    has_dense = int(text.get("first_k_dense_replace") or 0) > 0 or text.get("mlp_only_layers")
    return (width, dense) if has_dense else (width,)


def _context(text: Mapping[str, Any]) -> int:
    """Return the longest sequence; `max_position_embeddings` counts the scaling in, mostly.

    transformers writes the extended length; only YaRN's older files name the original one.
    """
    length = int(text.get("max_position_embeddings") or text.get("n_positions") or 0)
    scaling = text.get("rope_scaling") or {}
    original = int(scaling.get("original_max_position_embeddings") or 0)
    if original and original == length and float(scaling.get("factor") or 1) > 1:
        return int(length * float(scaling["factor"]))
    return length or 2048


def _number(text: Mapping[str, Any], name: str, most: int = 1 << 40) -> int:
    found = text.get(name)
    if not isinstance(found, int) or not 0 < found <= most:
        raise ConfigurationError(
            f"config.json: {name}: found {found!r}; sizing needs a number above 0",
            hint="only transformers' causal language models are sized; is this one?",
        )
    return found


def _unknown(kind: str) -> str:
    return (
        f"sizing was not checked with model_type {kind!r}: every layer counts as full attention"
        " unless config.json says otherwise"
    )


def _short(number: float, millions: str, billions: str) -> str:
    return f"{number / 1e9:.4g} {billions}" if number >= 1e9 else f"{number / 1e6:.4g} {millions}"
