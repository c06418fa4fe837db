"""Is what a quantized checkpoint inherits still its parent's?"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from registry.conformance.findings import Finding, error, some
from registry.conformance.reading import Checkpoint

_FIELDS = (
    *("model_type", "architectures", "vocab_size", "hidden_size", "intermediate_size"),
    *("num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim"),
    *("rms_norm_eps", "layer_norm_eps", "hidden_act", "attention_bias", "mlp_bias"),
    *("max_position_embeddings", "sliding_window", "tie_word_embeddings"),
    *("eos_token_id", "bos_token_id", "num_experts", "num_local_experts", "num_experts_per_tok"),
)
_COPY = "copy the parent's file, and add only quantization_config"


def against_parent(child: Checkpoint, parent: Checkpoint) -> Iterator[Finding]:
    """Compare a checkpoint with the one it was made from."""
    for name in _FIELDS:
        if name in parent.text and child.text.get(name) != parent.text[name]:
            told = f"{child.text.get(name)!r}, the parent has {parent.text[name]!r}"
            yield error("parent-config", f"config.json: {name}", told, _COPY)
    if _rope(child.text) != _rope(parent.text):
        told = f"{_rope(child.text)}, the parent has {_rope(parent.text)}"
        yield error("parent-rope", "config.json: rope", told, _COPY)
    if _digest(child.tokenizer) != _digest(parent.tokenizer):
        yield error("parent-tokenizer", "tokenizer.json", "is not the parent's", _COPY)
    if child.template.rstrip() != parent.template.rstrip():
        told = "is not the parent's" if child.template else "missing, the parent has one"
        yield error("parent-template", "chat_template.jinja", told, "copy the parent's")
    eos = parent.generation.get("eos_token_id")
    if eos is not None and child.generation.get("eos_token_id") != eos:
        told = f"{child.generation.get('eos_token_id')}, the parent has {eos}"
        yield error("parent-eos", "generation_config.json: eos_token_id", told, _COPY)
    yield from _weights(child, parent)


def _weights(child: Checkpoint, parent: Checkpoint) -> Iterator[Finding]:
    """Every weight of the parent must be there, quantized or not."""
    if parent.quantization or parent.modelopt:
        return
    tied = child.text.get("tie_word_embeddings")
    lost = [
        name
        for name in sorted(parent.tensors)
        if name not in child.tensors
        and f"{name}_packed" not in child.tensors
        and not (tied and name == "lm_head.weight")
    ]
    if lost:
        told = f"{some(lost)} of the parent is missing: filled with random numbers"
        yield error("parent-tensor", lost[0], told, "quantize the parent again")


def _rope(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return RoPE's parameters in the spelling of transformers 5, which wins where both are."""
    new = config.get("rope_parameters")
    if isinstance(new, Mapping) and new:
        found = dict(new)
    else:
        found = {"rope_theta": config.get("rope_theta"), **(config.get("rope_scaling") or {})}
    kind = found.pop("type", "default")
    return {"rope_type": kind, **{k: v for k, v in found.items() if v is not None}}


def _digest(tokenizer: Mapping[str, Any]) -> str:
    """Return a digest of what a tokenizer does; padding and truncation are a caller's settings."""
    does = {k: v for k, v in tokenizer.items() if k not in ("padding", "truncation")}
    return hashlib.sha256(json.dumps(does, sort_keys=True).encode()).hexdigest()
