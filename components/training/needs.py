"""What a training needs, from the base's headers alone: its layers, its disk; pure."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from penstock.core.errors import ConfigurationError
from penstock.core.training import Adapter, Training

_STATE_BYTES = 12
"""Of a trained parameter in a checkpoint: itself and AdamW's two moments, in 32 bits each."""

_AT_ONCE = 3
"""Checkpoints on the disk at once: two are kept while the next one is written."""

_OUTPUT = ("lm_head", "embed_out")
_EMBEDDING = ("embed_tokens", "wte", "wpe", "embed_in")


@dataclass(frozen=True, slots=True)
class Layer:
    """A linear layer, by its name without `.weight`."""

    name: str
    outputs: int
    inputs: int


def linear_layers(shapes: Mapping[str, tuple[int, ...]]) -> list[Layer]:
    """Return the layers that an adapter may stand beside: neither embeddings nor the output."""
    return [
        Layer(name.removesuffix(".weight"), *shape)
        for name, shape in sorted(shapes.items())
        if name.endswith(".weight")
        and len(shape) == 2
        and name.split(".")[-2] not in (*_OUTPUT, *_EMBEDDING)
    ]


def targeted(adapter: Adapter, layers: Iterable[Layer]) -> list[Layer]:
    """Return the layers that get an adapter.

    Raises:
        ConfigurationError: One is named that the model does not have.
    """
    every = list(layers)
    if adapter.target_modules is None:
        return every
    ends = sorted({layer.name.rpartition(".")[2] for layer in every})
    for name in adapter.target_modules:
        if not any(_is(layer, name) for layer in every):
            near = difflib.get_close_matches(name.rpartition(".")[2], ends, n=1)
            guess = f"; did you mean {near[0]!r}?" if near else ""
            raise ConfigurationError(
                f"training.lora.target_modules: the model has no linear layer {name!r}; allowed: "
                f"{', '.join(ends)}{guess}",
                hint="correct training in model.yaml, or leave target_modules out: every layer",
            )
    return [layer for layer in every if any(_is(layer, name) for name in adapter.target_modules)]


def trained_parameters(training: Training, shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Return how many parameters are trained."""
    adapter = training.adapter
    if adapter is None:
        return sum(math.prod(shape) for shape in shapes.values())
    chosen = targeted(adapter, linear_layers(shapes))
    return sum(adapter.rank * (layer.inputs + layer.outputs) for layer in chosen)


def disk_bytes(training: Training, shapes: Mapping[str, tuple[int, ...]], size_bytes: int) -> int:
    """Return what lies on the disk at most: checkpoints, and the result.

    Args:
        training: How.
        shapes: Of the base's tensors.
        size_bytes: Of the base's files with weights; the result is as large.
    """
    return trained_parameters(training, shapes) * _STATE_BYTES * _AT_ONCE + size_bytes


def _is(layer: Layer, name: str) -> bool:
    return layer.name == name or layer.name.endswith(f".{name}")
