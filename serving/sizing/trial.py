"""One way to serve a model on given devices: does it fit, and what can it do then?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from penstock.core.hardware import Accelerator
from serving.sizing import memory
from serving.sizing.memory import GIB, Batch, Item, Split
from serving.sizing.shape import Shape
from serving.sizing.wish import Option, Place, Wish

SEQUENCES = 256
"""At once where nobody asks for more: vLLM's own limit on devices below 70 GiB."""

NODE = 8
"""Devices of one node, which tensor parallelism stays inside."""

_STEP, _LEAST = 1024, 2048
_FP8_SM = 89


@dataclass(frozen=True, slots=True)
class Trial:
    """What a way to serve comes to."""

    option: Option
    split: Split
    batch: Batch
    items: tuple[Item, ...]
    """Beside the KV cache, on the fullest device."""

    share: float
    visible: float
    """Bytes of a device, as CUDA shows them."""

    context: int = 0
    """Tokens of one sequence; 0: nothing fits."""

    concurrency: int = 0
    """Sequences of that length at once."""

    sequence: int = 0
    """Bytes of one such sequence."""

    token: float = 0.0
    """Bytes of one more token."""

    why_not: str = ""

    @property
    def fixed(self) -> float:
        """Bytes of all items."""
        return sum(item.bytes for item in self.items)

    @property
    def room(self) -> float:
        """Bytes that are left for the KV cache."""
        return self.visible * self.share - self.fixed

    @property
    def needed(self) -> float:
        """Bytes that a device must have so that one sequence of this context fits."""
        return (self.fixed + self.sequence) / self.share

    @property
    def name(self) -> str:
        """A few words."""
        return f"{self.option.name}, {self.split}"


def attempt(shape: Shape, place: Place, option: Option, split: Split, wish: Wish) -> Trial:
    """Return what serving so comes to; `why_not` says why it cannot be."""
    batch = Batch(
        wish.concurrency or SEQUENCES,
        memory.batch_tokens(place.gpu),
        1 if wish.kv_cache == "fp8" else 2,
    )
    bits = 0.0 if shape.quantized else option.bits
    items = (
        memory.weights(shape, split, bits, option.name),
        memory.activations(shape, split, batch),
        memory.graphs(batch),
        memory.framework(split),
        memory.spare(),
    )
    share = wish.memory_share or memory.SHARES.get(place.engine, memory.OTHER_SHARE)
    visible = place.gpu.visible_gib * GIB
    problem = next(problems(shape, place.gpu, split), "") or _kv_problem(place.gpu, wish)
    found = Trial(option, split, batch, items, share, visible, why_not=problem)
    return found if problem else _filled(shape, found, wish)


def problems(shape: Shape, gpu: Accelerator, split: Split) -> Iterator[str]:
    """Yield why a model cannot be split so, each with what could be."""
    if not gpu.sm:
        yield f"{gpu.name} is no GPU"
    if why := why_not_tensor(shape, split.tensor):
        yield f"tp {split.tensor}: {why}; allowed: {', '.join(map(str, tensor_sizes(shape)))}"
    if split.pipeline > len(shape.layers):
        yield f"pp {split.pipeline} is more than {len(shape.layers)} layers"


def why_not_tensor(shape: Shape, tensor: int) -> str:
    """Return why layers cannot be split over so many devices; empty where they can.

    vLLM 0.33.0: `config/model.py: verify_with_parallel_config`, `models/llama.py: LlamaAttention`,
    `quantization/utils/fp8_utils.py: validate_fp8_block_shape`.
    """
    if tensor > NODE:
        return f"a node has {NODE} devices, and beyond it every layer would wait for the network"
    if shape.heads % tensor:
        return f"it does not divide the {shape.heads} heads of the model"
    for heads in {each.heads for each in shape.layers if each.kind in ("full", "window")}:
        if heads % tensor and tensor % heads:
            return f"it neither divides the {heads} heads of keys and values nor is a multiple"
    size = max(shape.blocks)
    for width in shape.split_widths:
        if tensor > 1 and (width % tensor or (width // tensor) % size):
            return (
                f"it cuts the width {width} into {width / tensor:g}, which are no whole blocks of"
                f" {size} weights that share a scale"
            )
    return ""


def tensor_sizes(shape: Shape) -> list[int]:
    """Return the tensor-parallel sizes inside a node that a model can be split into."""
    return [n for n in range(1, NODE + 1) if not why_not_tensor(shape, n)]


def splits(place: Place, wish: Wish) -> list[Split]:
    """Return the ways to use all devices of a replica, the one with most tensor parallelism first.

    A stage of the pipeline stays inside a node.

    What a person asks for is the only one, whether or not it works.
    """
    if wish.tensor_parallel or wish.pipeline_parallel:
        pipeline = wish.pipeline_parallel or max(place.count // (wish.tensor_parallel or 1), 1)
        tensor = wish.tensor_parallel or max(place.count // pipeline, 1)
        return [Split(tensor, pipeline)]
    sizes = [n for n in range(place.per_node, 0, -1) if place.per_node % n == 0]
    return [Split(n, place.count // n) for n in sizes]


def longest(shape: Shape, trial: Trial, sequences: int) -> int:
    """Return the longest context of which so many sequences fit; 0 where not even a short one."""
    least = min(_LEAST, shape.context)

    def fits(tokens: int) -> bool:
        each = memory.sequence_bytes(shape, trial.split, trial.batch, tokens)
        return sequences * each <= trial.room

    if not fits(least):
        return 0
    if fits(shape.context):
        return shape.context
    low, high = least // _STEP, shape.context // _STEP + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle * _STEP) else (low, middle)
    return max(low * _STEP, least)


def _filled(shape: Shape, trial: Trial, wish: Wish) -> Trial:
    """Return the trial with the context and the concurrency that are left room for."""
    wanted = wish.concurrency or 1
    context = min(wish.context or shape.context, shape.context)
    best = longest(shape, trial, wanted)
    if not wish.context:
        context = best
    each = memory.sequence_bytes(shape, trial.split, trial.batch, max(context, 1))
    why = ""
    if trial.room <= 0:
        over = -trial.room / GIB
        why = (
            f"{trial.fixed / GIB:.1f} GiB beside the KV cache, {over:.1f} more than"
            f" {trial.share:.0%} of a device's {trial.visible / GIB:.1f} GiB"
        )
    elif context == 0 or wanted * each > trial.room:
        tokens = context or min(_LEAST, shape.context)
        each = memory.sequence_bytes(shape, trial.split, trial.batch, tokens)
        why = (
            f"{wanted} x {each / GIB:.2f} GiB for sequences of {tokens:,} tokens do not fit into"
            f" the {trial.room / GIB:.1f} GiB that are left"
        )
    return Trial(
        trial.option,
        trial.split,
        trial.batch,
        trial.items,
        trial.share,
        trial.visible,
        context=0 if why else context,
        concurrency=0 if why else int(trial.room // each),
        sequence=each,
        token=memory.token_bytes(shape, trial.split, trial.batch),
        why_not=why,
    )


def _kv_problem(gpu: Accelerator, wish: Wish) -> str:
    if wish.kv_cache == "fp8" and (gpu.sm or 0) < _FP8_SM:
        return f"an FP8 KV cache needs SM {_FP8_SM}, {gpu.name} has {gpu.sm}; allowed: auto"
    return ""
