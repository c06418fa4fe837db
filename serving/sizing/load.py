"""What a replica can do per second, from its memory's bandwidth and arithmetic: an estimate.

The roofline: a step of decoding reads the weights that its tokens pass and their keys and values,
and computes two operations per parameter and token; whichever takes longer. Devices reach about
0.8 of their bandwidth (aiconfigurator, systems/*.yaml @095f58a) and, here, half of their
arithmetic. Kernels, scheduling and communication are not in it: measure before you promise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from penstock.core.hardware import Accelerator
from serving.sizing.shape import Shape
from serving.sizing.trial import Trial
from serving.sizing.wish import Load

BANDWIDTH_SHARE, ARITHMETIC_SHARE = 0.8, 0.5


@dataclass(frozen=True, slots=True)
class Estimate:
    """What one replica does, and how many a load needs."""

    sequences: int
    """Decoding at once, as many as the cache and the limit allow."""

    tpot_s: float
    """Seconds per token of an answer, with all of them."""

    tokens_per_s: float
    """Of answers, all sequences together."""

    prefill_per_s: float
    """Tokens of prompts, while nothing is decoded."""

    replicas: int = 0
    """For the load; 0: no load was named."""

    requests_per_s: float = 0.0
    """Of one replica."""


def estimate(shape: Shape, gpu: Accelerator, trial: Trial, load: Load | None = None) -> Estimate:
    """Return what a replica does, by the roofline.

    Args:
        shape: The model.
        gpu: One of its devices.
        trial: How it is served.
        load: Requests that arrive; without it sequences are as long as the context.
    """
    tokens = min(load.prompt + load.answer, trial.context) if load else trial.context
    each = max(trial.token * tokens, 1.0)
    sequences = max(1, min(int(trial.room // each), trial.batch.sequences))
    devices = trial.split.devices
    weights = trial.items[0].bytes * _touched(shape, sequences)
    # stages take turns: a token waits for all of them, which read their part each
    read = (weights + sequences * each) * trial.split.pipeline / (gpu.bandwidth * BANDWIDTH_SHARE)
    flops = _flops(shape, gpu, trial) * devices * ARITHMETIC_SHARE
    computed = 2.0 * shape.active * sequences / flops
    tpot = max(read, computed)
    prefill = flops / (2.0 * shape.active)
    if load is None:
        return Estimate(sequences, tpot, sequences / tpot, prefill)
    per_request = load.prompt / prefill + load.answer * tpot / sequences
    able = 1 / per_request
    return Estimate(sequences, tpot, sequences / tpot, prefill, math.ceil(load.per_s / able), able)


def _touched(shape: Shape, sequences: int) -> float:
    """Return the share of the weights that one step reads: experts that no token goes to rest."""
    if not shape.experts or not shape.parameters:
        return 1.0
    chance = 1 - (1 - shape.experts_per_token / shape.experts) ** sequences
    share = shape.weights.expert_parameters / shape.parameters
    return 1 - share + share * chance


def _flops(shape: Shape, gpu: Accelerator, trial: Trial) -> float:
    eight = "fp8" in (shape.artifact if shape.quantized else trial.option.name)
    return gpu.fp8_flops if eight and gpu.fp8_flops else gpu.bf16_flops
