"""A checkpoint that every engine reads the same, without torch: what TensorRT-LLM is built from."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models

CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "hidden_size": 32,
    "intermediate_size": 64,
    "max_position_embeddings": 256,
    "vocab_size": 4,
    "eos_token_id": 1,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "torch_dtype": "float16",
}
FITS = {"max_batch_size": 8, "max_input_len": 128, "max_seq_len": 256, "max_num_tokens": 256}
"""`engine` of a spec that suits its context."""


def make(folder: Path, **config: Any) -> Path:
    """Write it into a folder, with other fields in config.json where given."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(CONFIG | config))
    names = ("model.embed_tokens.weight", "lm_head.weight")
    save_file({name: np.ones((4, 32), np.float16) for name in names}, folder / "model.safetensors")
    words = models.WordLevel({"<pad>": 0, "<end>": 1, "a": 2, "b": 3}, unk_token="<pad>")
    Tokenizer(words).save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<end>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def quantize_by_modelopt(folder: Path) -> Path:
    """Give it a layer in FP8, as ModelOpt exports it."""
    layer, one = "model.layers.0.self_attn.q_proj", struct.pack("<f", 1.0)
    half = (np.ones((4, 32), np.float16)).tobytes()
    tensors: dict[str, tuple[str, list[int], bytes]] = {
        f"{layer}.weight": ("F8_E4M3", [32, 32], b"\x38" * 1024),
        f"{layer}.weight_scale": ("F32", [], one),
        f"{layer}.input_scale": ("F32", [], one),
        "model.embed_tokens.weight": ("F16", [4, 32], half),
        "lm_head.weight": ("F16", [4, 32], half),
    }
    header, end = {}, 0
    for name, (kind, shape, content) in tensors.items():
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [end, end + len(content)]}
        end += len(content)
    text = json.dumps(header).encode()
    content = b"".join(content for _, _, content in tensors.values())
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + content)
    said = {"quant_algo": "FP8", "kv_cache_quant_algo": None, "exclude_modules": ["lm_head"]}
    body = {"producer": {"name": "modelopt", "version": "0.47.0"}, "quantization": said}
    (folder / "hf_quant_config.json").write_text(json.dumps(body))
    return folder
