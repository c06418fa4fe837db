"""A small model and its builds, for the tests beside it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from components.trtllm.documented import ENGINE_IMAGE
from components.trtllm.key import BuildKey, Node, Runtime, key_of
from components.trtllm.model import (
    Build,
    ModelFacts,
    RuntimeImage,
    Shape,
    accelerator,
    facts_of,
)
from components.trtllm.plan import Places
from penstock.core.identity import Digest
from penstock.core.recipes import ModelOptFp8

CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "max_position_embeddings": 8192,
    "torch_dtype": "bfloat16",
}
FACTS: ModelFacts = facts_of(CONFIG, 16_000_000_000)
WEIGHTS = Digest.of(b"weights")
NODE = Node("NVIDIA H100 80GB HBM3", 90, 580, 13)
PLACES = Places(PurePosixPath("/in"), PurePosixPath("/build"))


def build(**changes: Any) -> Build:
    """Return an FP8 engine on one H100, with other parts where given; `tp=2` and so on too."""
    shape = Shape(**{n: changes.pop(n) for n in list(changes) if n in Shape.__dataclass_fields__})
    base = Build(
        strategy="engine",
        model=FACTS,
        recipe=ModelOptFp8(),
        shape=shape,
        image=RuntimeImage.parse(ENGINE_IMAGE),
        gpu=accelerator("H100"),
    )
    return replace(base, **changes)


def key(**changes: Any) -> BuildKey:
    """Return the key of such a build."""
    return key_of(build(**changes), WEIGHTS, NODE)


def runtime(**changes: Any) -> Runtime:
    """Return the runtime that such a key is for, or another node."""
    return Runtime(ENGINE_IMAGE, "1.2.1", replace(NODE, **changes))


def parent(folder: Path) -> Path:
    """Write a parent's folder, as far as builders read it."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "model.safetensors").write_bytes(b"\x01" * 1024)
    (folder / "tokenizer.json").write_text("{}")
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    return folder
