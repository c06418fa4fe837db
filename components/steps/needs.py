"""What the pods of a run need that load the checkpoint: from the spec and its size; pure."""

from __future__ import annotations

import math
from typing import NamedTuple

from penstock.core.spec import ModelSpec
from serving.gpus.ask import ask
from serving.gpus.offers import NVIDIA

_GIB = 1 << 30
_BASE_GIB = 4
"""Of Python, torch and data; measured starts take 1 to 2."""

_TIMES = 3
"""Of the checkpoint, for whoever loads it: 32-bit weights of a 16-bit checkpoint, and what
quantization peaks at (1.54 times above its floor, benchmarks/quantize.py), rounded up."""

_TRAINED = {"lora": 4, "full": 10}
"""Of the checkpoint, for who trains it: every trained parameter of a 16-bit checkpoint has itself,
its gradient and AdamW's two moments in 32 bits (Loshchilov and Hutter, arXiv 1711.05101)."""


class Needs(NamedTuple):
    """Of one pod."""

    memory: str
    """As Kubernetes writes it; an estimate, on the safe side for weights of 16 bits."""

    devices: str
    """How many; of the training only."""

    device: str
    """What they are called there."""

    toleration: dict[str, str]
    """Of the taint that keeps others from nodes with such devices."""


def needs(spec: ModelSpec, size_bytes: int) -> Needs:
    """Return what a pod needs that loads, or trains, a checkpoint of so many bytes."""
    trained = _TRAINED[spec.training.method] if spec.data.train else 0
    memory = f"{_BASE_GIB + math.ceil(max(_TIMES, trained) * size_bytes / _GIB)}Gi"
    # a TrainJob's own pods have their devices
    alone = spec.hardware.accelerator != "cpu" and spec.training.distributed is None
    device = ask(spec.hardware).tolerated or NVIDIA
    toleration = {"key": device, "operator": "Exists", "effect": "NoSchedule"}
    return Needs(memory, "1" if alone else "0", device, toleration)
