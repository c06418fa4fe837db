"""Opens a checkpoint on the CPU, or refuses what would run wrongly here."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from penstock.core.errors import EngineRefused
from serving.engine.refusals import RequestRefused

LONGEST_CONTEXT = 8192
"""Longer contexts need a cache that a CPU host rarely has; the engine serves up to this."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model and its tokenizer, ready to generate."""

    folder: Path
    model: Any
    tokenizer: Any
    context_length: int
    eos_token_ids: tuple[int, ...]

    @property
    def chats(self) -> bool:
        """Whether a chat template came with the tokenizer."""
        return bool(self.tokenizer.chat_template)

    @property
    def pad_token_id(self) -> int:
        """A token to pad with; masked, so any will do where the tokenizer names none."""
        pad: int | None = self.tokenizer.pad_token_id
        return 0 if pad is None else pad

    def encode_chat(self, messages: Sequence[Mapping[str, Any]]) -> list[int]:
        """Returns the token ids of a conversation, up to where the assistant answers."""
        import jinja2

        if not self.chats:
            raise RequestRefused(
                "this model has no chat template; use /v1/completions", param="messages"
            )
        try:
            text = self.tokenizer.apply_chat_template(
                list(messages), tokenize=False, add_generation_prompt=True
            )
        except jinja2.TemplateError as error:
            raise RequestRefused(f"the chat template refused: {error}", param="messages") from error
        # the template writes the special tokens itself
        return self._ids(text, add_special_tokens=False)

    def encode_text(self, text: str) -> list[int]:
        """Returns the token ids of plain text, with the tokenizer's own special tokens."""
        return self._ids(text, add_special_tokens=True)

    def encode_plain(self, text: str) -> list[int]:
        """Returns the token ids of text inside a conversation: no special tokens are added."""
        return self._ids(text, add_special_tokens=False)

    def decode(self, token_ids: Sequence[int]) -> str:
        """Returns the text of the tokens; special tokens have none."""
        text: str = self.tokenizer.backend_tokenizer.decode(list(token_ids))
        return text

    def token_text(self, token_id: int) -> str:
        """Returns one token as text, special tokens by their name."""
        text: str = self.tokenizer.backend_tokenizer.decode([token_id], skip_special_tokens=False)
        return text

    def _ids(self, text: str, *, add_special_tokens: bool) -> list[int]:
        encoding = self.tokenizer.backend_tokenizer.encode(
            text, add_special_tokens=add_special_tokens
        )
        ids: list[int] = encoding.ids
        return ids


def load(folder: Path) -> Loaded:
    """Returns the checkpoint on one thread, in float32 unless its format needs another type.

    Raises:
        EngineRefused: It cannot be read, or would give wrong answers on this engine.
    """
    config = _read_config(folder)
    _refuse_foreign_quantization(folder, config)
    tokenizer = open_tokenizer(folder)
    model = _open_model(folder, _type_of(config))
    eos = _eos_token_ids(model, tokenizer)
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", LONGEST_CONTEXT)
    return Loaded(folder, model, tokenizer, min(positions, LONGEST_CONTEXT), eos)


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise EngineRefused(
            f"{folder}: config.json cannot be read: {error}",
            hint="point at the folder of a Hugging Face checkpoint",
        ) from error
    if not isinstance(config, dict):
        raise EngineRefused(f"{folder}: config.json holds no object")
    return config


def _refuse_foreign_quantization(folder: Path, config: Mapping[str, Any]) -> None:
    method = (config.get("quantization_config") or {}).get("quant_method")
    # transformers loads ModelOpt weights without their scales: fluent nonsense instead of an error
    if method == "modelopt" or (folder / "hf_quant_config.json").exists():
        raise EngineRefused(
            f"{folder}: a ModelOpt checkpoint; the CPU engine would ignore its scales",
            hint="serve it with TensorRT-LLM or vLLM, or quantize with compressed-tensors",
        )
    if method not in (None, "compressed-tensors"):
        raise EngineRefused(
            f"{folder}: quantization method {method!r}; the CPU engine runs plain and"
            " compressed-tensors checkpoints",
            hint="serve it with vLLM, or use the unquantized checkpoint",
        )


def open_tokenizer(folder: Path) -> Any:
    """Returns the checkpoint's tokenizer; `EngineRefused` if it cannot be used."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        backend = tokenizer.backend_tokenizer
        if not backend.encode("a", add_special_tokens=False).ids:
            raise ValueError("it encodes text to nothing")
    # the Rust tokenizers raise bare Exception for malformed files
    except Exception as error:
        raise EngineRefused(
            f"{folder}: the tokenizer cannot be used: {error}",
            hint="pull the checkpoint again; tokenizer.json must come with it",
        ) from error
    return tokenizer


def _type_of(config: Mapping[str, Any]) -> str:
    """Returns the type to compute in, by torch's name.

    compressed-tensors unpacks NVFP4 to bfloat16 whatever is asked for, and fails at the first token
    beside weights in float32.
    """
    layout = str((config.get("quantization_config") or {}).get("format", ""))
    return "bfloat16" if "nvfp4" in layout else "float32"


def _open_model(folder: Path, computes_in: str) -> Any:
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    torch.set_num_threads(1)
    logging.disable_progress_bar()
    try:
        # the attention that continuous batching can page; custom code is never run
        model, report = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=getattr(torch, computes_in),
            local_files_only=True,
            attn_implementation="sdpa",
            output_loading_info=True,
        )
    except (OSError, ValueError, ImportError, RuntimeError, KeyError, SafetensorError) as error:
        raise EngineRefused(
            f"{folder}: transformers cannot load the model: {error}",
            hint="verify the files, or serve it with vLLM",
        ) from error
    # transformers fills what is missing with random numbers and only warns
    if absent := sorted(str(key) for key in report["missing_keys"]):
        raise EngineRefused(
            f"{folder}: {len(absent)} tensors are missing, the first is {absent[0]}",
            hint="pull the checkpoint again, or ask its author",
        )
    model.requires_grad_(requires_grad=False)
    return model.eval()


def _eos_token_ids(model: Any, tokenizer: Any) -> tuple[int, ...]:
    """Returns the tokens that end an answer; the tokenizer's own, which ends a turn, first."""
    configured = model.generation_config.eos_token_id
    found = [tokenizer.eos_token_id]
    found += configured if isinstance(configured, list) else [configured]
    return tuple(dict.fromkeys(token for token in found if token is not None))
