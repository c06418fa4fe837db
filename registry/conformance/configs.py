"""Do the configuration files mean the same to every engine?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from registry.conformance.findings import ON_TRANSFORMERS_4, Finding, error, warning
from registry.conformance.reading import Checkpoint

_DEFAULT_THETA = 10000.0
_TURN_ENDS = ("<|im_end|>", "<|eot_id|>", "<|end|>", "<end_of_turn>", "<|end_of_turn|>")
_TURN_STARTS = ("<|im_start|>", "<|start_header_id|>", "<start_of_turn>", "[INST]", "<|assistant|>")
_BOTH = "write both forms side by side (rope_theta and rope_scaling beside rope_parameters)"


def rope(checkpoint: Checkpoint) -> Iterator[Finding]:
    """Compare the spellings of RoPE of transformers 4 and 5.

    transformers 5 writes `rope_parameters` only; 4.57 does not know it, and takes theta 10000
    without scaling.
    """
    new = checkpoint.text.get("rope_parameters")
    if not isinstance(new, Mapping) or not new:
        return
    old = {k: checkpoint.text[k] for k in ("rope_theta", "rope_scaling") if k in checkpoint.text}
    where = "config.json: rope_parameters"
    if any(isinstance(part, Mapping) for part in new.values()):  # one per kind of layer
        if "rope_theta" not in old:
            told = "transformers 4 does not know it, and takes defaults for every layer"
            yield error("rope-v5-only", where, told, _BOTH, engines=ON_TRANSFORMERS_4)
        return
    plain = new.get("rope_theta", _DEFAULT_THETA) == _DEFAULT_THETA and not _scaling(new)
    if not old and plain:
        told = "only transformers 5 knows it; 4 takes its defaults, which happen to be the same"
        yield warning("rope-v5-only", where, told, _BOTH)
    elif "rope_theta" not in old or (_scaling(new) and "rope_scaling" not in old):
        told = "only transformers 5 knows it; 4 takes theta 10000 without scaling, and says nothing"
        yield error("rope-v5-only", where, told, _BOTH, engines=ON_TRANSFORMERS_4)
    elif old["rope_theta"] != new.get("rope_theta", old["rope_theta"]) or (
        _scaling(old.get("rope_scaling") or {}) != _scaling(new)
    ):
        told = f"contradicts rope_theta {old['rope_theta']}, rope_scaling {old.get('rope_scaling')}"
        yield error("rope-contradiction", where, told, _BOTH)


def _scaling(rope: Mapping[str, Any]) -> dict[str, Any]:
    """Return what scales RoPE, spelt one way; empty where nothing does."""
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind == "default":
        return {}
    rest = {k: v for k, v in rope.items() if k not in ("rope_type", "type", "rope_theta")}
    return {"rope_type": kind, **rest}


def tokenizer_class(checkpoint: Checkpoint) -> Iterator[Finding]:
    """Find what only transformers 5 understands in tokenizer_config.json."""
    settings, where = checkpoint.tokenizer_config, "tokenizer_config.json"
    if settings.get("tokenizer_class") == "TokenizersBackend":
        yield error(
            "tokenizer-class",
            f"{where}: tokenizer_class",
            "TokenizersBackend exists in transformers 5 only",
            "write PreTrainedTokenizerFast: both know it",
            engines=ON_TRANSFORMERS_4,
        )
    if isinstance(settings.get("extra_special_tokens"), list):
        yield error(
            "tokenizer-extra",
            f"{where}: extra_special_tokens",
            "a list, as transformers 5 writes it; 4 takes a mapping and fails",
            "call it additional_special_tokens",
            engines=ON_TRANSFORMERS_4,
        )


def endings(checkpoint: Checkpoint) -> Iterator[Finding]:
    """Compare the tokens that end an answer with the vocabulary and with the tokenizer's."""
    size = checkpoint.text.get("vocab_size")
    ids = _eos_ids(checkpoint)
    beyond = [i for i in ids if isinstance(size, int) and not 0 <= i < size]
    where = "generation_config.json: eos_token_id"
    if beyond:
        told = f"{beyond[0]} is not in the vocabulary of {size}: an answer never ends there"
        yield error("eos-beyond", where, told, "take it from the tokenizer")
    eos = _content(checkpoint.tokenizer_config.get("eos_token"))
    own = _added(checkpoint).get(eos) if eos else None
    if own is not None and ids and own not in ids:
        yield error(
            "eos-mismatch",
            where,
            f"{sorted(ids)} has not the tokenizer's {eos} ({own}): answers do not end at it",
            f"add {own}",
        )
    if own is None and not ids:
        yield warning("eos-missing", where, "no token ends an answer", "name one")


def chat_template(checkpoint: Checkpoint) -> Iterator[Finding]:
    """Find a model that speaks in turns and has no template to write them."""
    if checkpoint.template:
        return
    added = _added(checkpoint)
    ids = _eos_ids(checkpoint) | {added.get(_content(checkpoint.tokenizer_config.get("eos_token")))}
    ends = [token for token in _TURN_ENDS if added.get(token, -1) in ids]
    starts = [token for token in _TURN_STARTS if token in added]
    where, fix = "chat_template.jinja", "copy the parent's; a base model needs none"
    if ends:
        told = f"missing, and answers end at {ends[0]}: engines refuse chats, or make up a template"
        yield error("chat-template", where, told, fix)
    elif starts:
        yield warning("chat-template", where, f"missing, but the tokenizer has {starts[0]}", fix)


def _eos_ids(checkpoint: Checkpoint) -> set[int]:
    named = checkpoint.generation.get("eos_token_id", checkpoint.text.get("eos_token_id"))
    return {i for i in (named if isinstance(named, list) else [named]) if isinstance(i, int)}


def _added(checkpoint: Checkpoint) -> dict[str, int]:
    entries = checkpoint.tokenizer.get("added_tokens") or []
    return {e["content"]: e["id"] for e in entries if "content" in e and "id" in e}


def _content(token: object) -> str:
    """Return a token's text; transformers writes it alone, or as an object."""
    found = token.get("content") if isinstance(token, Mapping) else token
    return found if isinstance(found, str) else ""
