"""Headers of published checkpoints, made from their config.json by the layout that each family has.

No weights and no Hub are needed. That the layout is right shows in the number of parameters, which
is compared with what the Hub publishes. The experts of a layer are one tensor here, as some
families store them: a hundred thousand headers would only be slower.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from serving.sizing.weights import Tensor

Config = Mapping[str, Any]
_WIDTH = {"BF16": 2, "F32": 4, "F8_E4M3": 1, "U8": 1}


def tensors(config: Config) -> list[Tensor]:
    """Return every tensor of a checkpoint."""
    text: Config = config.get("text_config", config)
    quant = config.get("quantization_config") or {}
    block = quant.get("weight_block_size")
    plain = list(_model(config, text))
    if block:
        return [each for t in plain for each in _in_blocks(t, block)]
    if config.get("quant_algo") == "FP8":
        return [each for t in plain for each in _per_tensor(t)]
    return plain


def _tensor(name: str, *shape: int, dtype: str = "BF16") -> Tensor:
    return Tensor(name, dtype, shape, math.prod(shape) * _WIDTH[dtype])


def _model(config: Config, text: Config) -> Iterator[Tensor]:
    hidden, vocab, layers = text["hidden_size"], text["vocab_size"], text["num_hidden_layers"]
    root = "language_model.model." if "text_config" in config else "model."
    yield _tensor(f"{root}embed_tokens.weight", vocab, hidden)
    drafts = text.get("num_nextn_predict_layers") or 0
    for i in range(layers + drafts):
        at = f"{root}layers.{i}."
        yield from _attention(text, at, i)
        yield from _mlp(text, at, i)
        yield _tensor(f"{at}input_layernorm.weight", hidden)
        yield _tensor(f"{at}post_attention_layernorm.weight", hidden)
        if i >= layers:  # DeepSeek's drafts: a projection of two states, norms, both tables again
            yield _tensor(f"{at}eh_proj.weight", hidden, 2 * hidden)
            yield _tensor(f"{at}embed_tokens.weight", vocab, hidden)
            yield _tensor(f"{at}shared_head.head.weight", vocab, hidden)
    yield _tensor(f"{root}norm.weight", hidden)
    if not config.get("tie_word_embeddings", text.get("tie_word_embeddings", False)):
        yield _tensor("lm_head.weight", vocab, hidden)
    if beside := config.get("beside_parameters"):
        yield _tensor("model.visual.everything.weight", beside)


def _attention(text: Config, at: str, index: int) -> Iterator[Tensor]:
    kinds = text.get("layer_types") or []
    at = f"{at}self_attn."
    if text.get("kv_lora_rank"):
        yield from _latent(text, at)
    elif index < len(kinds) and kinds[index] == "linear_attention":
        yield from _delta(text, at.replace("self_attn", "linear_attn"))
    else:
        yield from _grouped(text, at, index)


def _grouped(text: Config, at: str, index: int) -> Iterator[Tensor]:
    hidden, heads, keys = text["hidden_size"], text["num_attention_heads"], _keys(text)
    width = text.get("head_dim") or hidden // heads
    values = text.get("v_head_dim") or width
    wide = heads * width * (2 if text.get("attn_output_gate") else 1)
    yield _tensor(f"{at}q_proj.weight", wide, hidden)
    yield _tensor(f"{at}k_proj.weight", keys * width, hidden)
    yield _tensor(f"{at}v_proj.weight", keys * values, hidden)
    yield _tensor(f"{at}o_proj.weight", hidden, heads * values)
    if text.get("attention_bias") or text["model_type"] in ("qwen2", "mimo"):
        for name, size in (("q", heads), ("k", keys), ("v", keys)):
            yield _tensor(f"{at}{name}_proj.bias", size * width)
    if text["model_type"] == "gpt_oss":
        yield _tensor(f"{at}o_proj.bias", hidden)
        yield _tensor(f"{at}sinks", heads)
    if text["model_type"].startswith("qwen3"):
        yield _tensor(f"{at}q_norm.weight", width)
        yield _tensor(f"{at}k_norm.weight", width)
    if text["model_type"] == "minimax_m2":
        yield _tensor(f"{at}q_norm.weight", heads * width)
        yield _tensor(f"{at}k_norm.weight", keys * width)


def _keys(text: Config) -> int:
    return int(text.get("num_key_value_heads") or text["num_attention_heads"])


def _latent(text: Config, at: str) -> Iterator[Tensor]:
    hidden, heads = text["hidden_size"], text["num_attention_heads"]
    query, latent, rope = text["q_lora_rank"], text["kv_lora_rank"], text["qk_rope_head_dim"]
    nope, values = text["qk_nope_head_dim"], text["v_head_dim"]
    yield _tensor(f"{at}q_a_proj.weight", query, hidden)
    yield _tensor(f"{at}q_a_layernorm.weight", query)
    yield _tensor(f"{at}q_b_proj.weight", heads * (nope + rope), query)
    yield _tensor(f"{at}kv_a_proj_with_mqa.weight", latent + rope, hidden)
    yield _tensor(f"{at}kv_a_layernorm.weight", latent)
    yield _tensor(f"{at}kv_b_proj.weight", heads * (nope + values), latent)
    yield _tensor(f"{at}o_proj.weight", hidden, heads * values)
    if width := text.get("index_head_dim"):
        yield _tensor(f"{at}indexer.wq_b.weight", text["index_n_heads"] * width, query)
        yield _tensor(f"{at}indexer.wk.weight", width, hidden)
        yield _tensor(f"{at}indexer.weights_proj.weight", text["index_n_heads"], hidden)


def _delta(text: Config, at: str) -> Iterator[Tensor]:
    hidden, values = text["hidden_size"], text["linear_num_value_heads"]
    keys = text["linear_num_key_heads"] * text["linear_key_head_dim"]
    wide = values * text["linear_value_head_dim"]
    yield _tensor(f"{at}in_proj_qkv.weight", 2 * keys + wide, hidden)
    yield _tensor(f"{at}in_proj_z.weight", wide, hidden)
    yield _tensor(f"{at}in_proj_a.weight", values, hidden)
    yield _tensor(f"{at}in_proj_b.weight", values, hidden)
    yield _tensor(f"{at}conv1d.weight", 2 * keys + wide, 1, text["linear_conv_kernel_dim"])
    yield _tensor(f"{at}out_proj.weight", hidden, wide)


def _mlp(text: Config, at: str, index: int) -> Iterator[Tensor]:
    hidden = text["hidden_size"]
    experts = next(
        (text[k] for k in ("num_local_experts", "n_routed_experts", "num_experts") if text.get(k)),
        0,
    )
    dense = index < (text.get("first_k_dense_replace") or 0)
    step = text.get("interleave_moe_layer_step") or 1
    if not experts or dense or (index + 1) % step:
        wide = text.get("intermediate_size_mlp") if step > 1 else None
        yield from _gated(f"{at}mlp.", hidden, wide or text["intermediate_size"])
        return
    width = text.get("moe_intermediate_size") or text["intermediate_size"]
    if text["model_type"] == "gpt_oss":
        yield from _mxfp4(text, at, experts)
        return
    yield _tensor(f"{at}mlp.gate.weight", experts, hidden)
    yield from _gated(f"{at}mlp.experts.", hidden, width, experts)
    if shared := text.get("n_shared_experts"):
        yield from _gated(f"{at}mlp.shared_experts.", hidden, shared * width)
    if text["model_type"] == "llama4_text":
        yield from _gated(f"{at}mlp.shared_expert.", hidden, width)


def _gated(at: str, hidden: int, width: int, *many: int) -> Iterator[Tensor]:
    yield _tensor(f"{at}gate_proj.weight", *many, width, hidden)
    yield _tensor(f"{at}up_proj.weight", *many, width, hidden)
    yield _tensor(f"{at}down_proj.weight", *many, hidden, width)


def _mxfp4(text: Config, at: str, experts: int) -> Iterator[Tensor]:
    hidden, width = text["hidden_size"], text["intermediate_size"]
    yield _tensor(f"{at}mlp.router.weight", experts, hidden)
    yield _tensor(f"{at}mlp.router.bias", experts)
    for name, rows, columns in (("gate_up", 2 * width, hidden), ("down", hidden, width)):
        root = f"{at}mlp.experts.{name}_proj"
        yield _tensor(f"{root}_blocks", experts, rows, columns // 32, 16, dtype="U8")
        yield _tensor(f"{root}_scales", experts, rows, columns // 32, dtype="U8")
        yield _tensor(f"{root}_bias", experts, rows)


def _quantized(tensor: Tensor) -> bool:
    """Whether a tensor is one of the layers' matrices; gates, indexers and tables are kept."""
    kept = ("embed_tokens", "lm_head", "mlp.gate.", "head.weight", "weights_proj", "eh_proj")
    return len(tensor.shape) > 1 and not any(word in tensor.name for word in kept)


def _in_blocks(tensor: Tensor, block: list[int]) -> Iterator[Tensor]:
    if not _quantized(tensor):
        yield tensor
        return
    *many, rows, columns = tensor.shape
    yield _tensor(tensor.name, *tensor.shape, dtype="F8_E4M3")
    scales = math.ceil(rows / block[0]), math.ceil(columns / block[1])
    yield _tensor(f"{tensor.name}_scale_inv", *many, *scales, dtype="F32")


def _per_tensor(tensor: Tensor) -> Iterator[Tensor]:
    if not _quantized(tensor):
        yield tensor
        return
    yield _tensor(tensor.name, *tensor.shape, dtype="F8_E4M3")
    root = tensor.name.removesuffix(".weight")
    yield _tensor(f"{root}.weight_scale", dtype="F32")
    yield _tensor(f"{root}.input_scale", dtype="F32")
