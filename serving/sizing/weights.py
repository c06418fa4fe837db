"""Where a checkpoint's bytes go when it is split over devices: layers, embeddings, and the rest.

Names are those of transformers' checkpoints; the split is that of vLLM's layers (column and row
parallel, `vllm/model_executor/layers/linear.py` 0.33.0), which SGLang shares. What is not known to
be split counts whole on every device.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

_LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks)\.(\d+)\.")
_BESIDE = re.compile(
    r"(?:^|\.)(?:visual|vision\w*|audio\w*|multi_modal_projector|mm_\w+|embed_vision|embed_audio"
    r"|image_newline|patch_merger|sound\w*)\."
)
_DRAFT = re.compile(r"(?:^|\.)(?:mtp\w*|eagle\w*|nextn\w*)\.")
_EMBED = re.compile(r"(?:embed_tokens|wte|word_embeddings|tok_embeddings|embed_tokens_per_layer)\.")
_HEAD = re.compile(r"(?:^|\.)(?:lm_head|output|embed_out)\.")
_KEYS = re.compile(r"\.(?:k_proj|v_proj)(?:\.|$)")
_WHOLE = re.compile(
    r"\.(?:gate|router|shared_expert_gate|q_a_proj|kv_a_proj_with_mqa|indexer|fused_qkv_a_proj)(?:\.|$)"
)
_SCALES = re.compile(
    r"(?:scale\w*|scales|zero_point|qzeros|g_idx|weight_shape|_scales)$", re.IGNORECASE
)
_PACKED = {"weight_packed": {"I32": 8, "U8": 2}, "qweight": {"I32": 8}}


class Header(Protocol):
    """What is needed of an entry of a safetensors header, whoever read it."""

    @property
    def name(self) -> str:
        """Of the tensor."""
        ...

    @property
    def dtype(self) -> str:
        """The format's word, such as BF16, F8_E4M3 or U8."""
        ...

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the stored tensor, packed or not."""
        ...

    @property
    def size(self) -> int:
        """Bytes."""
        ...


@dataclass(frozen=True, slots=True)
class Tensor:
    """A `Header`."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    size: int
    """Bytes."""


@dataclass(slots=True)
class Part:
    """Bytes of one layer, by how tensor parallelism treats them."""

    split: int = 0
    keys: int = 0
    """Projections to keys and values: split over no more devices than there are such heads."""

    whole: int = 0

    def on_device(self, tensor_parallel: int, heads: int, shrink: float) -> float:
        """Return what one device holds."""
        split = self.split / tensor_parallel + self.keys / min(tensor_parallel, heads)
        return split * shrink + self.whole


@dataclass(frozen=True, slots=True)
class Weights:
    """A checkpoint's bytes."""

    layers: tuple[Part, ...]
    embedding: int
    head: int
    """0 where the embedding's table serves as head too."""

    rest: int
    """Norms after the last layer, and what has no known place."""

    other: int
    """Encoders of images and sounds."""

    draft: int
    """Layers that guess tokens ahead: not loaded unless speculative decoding asks for them."""

    parameters: int
    expert_parameters: int
    table_parameters: int
    """Of an embedding that is only looked up."""

    outside_parameters: int
    """Of drafts and encoders, which no token of the language model passes."""

    padding: float = 1.0
    """What an engine adds to experts to suit its kernels."""

    by_dtype: Mapping[str, int] = field(default_factory=dict)
    tied: bool = False

    @property
    def bytes(self) -> int:
        """Of everything that is loaded."""
        layers = sum(part.split + part.keys + part.whole for part in self.layers)
        return layers + self.embedding + self.head + self.rest + self.other

    def active(self, experts: int, per_token: int) -> int:
        """Return the parameters that one token passes."""
        idle = self.expert_parameters * (1 - per_token / experts) if experts else 0
        return int(self.parameters - self.outside_parameters - self.table_parameters - idle)

    def on_fullest_device(
        self, tensor_parallel: int, pipeline_parallel: int, heads: int, shrink: float = 1.0
    ) -> float:
        """Return the bytes on the device that has most.

        Embedding and head are split by vocabulary; the first stage has one, the last the other,
        and a table that is both lies in both (vLLM 0.33.0, `models/llama.py`).

        Args:
            tensor_parallel: Devices that share every layer.
            pipeline_parallel: Stages.
            heads: Of keys and values.
            shrink: Bytes of a layer's matrices after quantization, as a share of what they are.
        """
        stages = stages_of(len(self.layers), pipeline_parallel)
        loads = []
        for number, (start, end) in enumerate(stages):
            held = sum(p.on_device(tensor_parallel, heads, shrink) for p in self.layers[start:end])
            held *= self.padding
            last = number == len(stages) - 1
            if number == 0:
                held += self.embedding / tensor_parallel + self.other
            if last:
                held += self.rest + self.head / tensor_parallel
                if self.tied and number:
                    held += self.embedding / tensor_parallel
            loads.append(held)
        return max(loads)


def stages_of(layers: int, pipeline_parallel: int) -> list[tuple[int, int]]:
    """Return the first layer of each pipeline stage and the one after its last.

    vLLM 0.33.0, `distributed/utils.py: get_pp_indices`: what is left over goes to the stages before
    the last, from the back.
    """
    sizes = [layers // pipeline_parallel] * pipeline_parallel
    for i in range(2, layers % pipeline_parallel + 2):
        sizes[-i] += 1
    ends = [sum(sizes[: i + 1]) for i in range(pipeline_parallel)]
    return [(end - size, end) for end, size in zip(ends, sizes, strict=True)]


def weights_of(
    tensors: Iterable[Header], *, layers: int, tied: bool, artifact: str, padding: float = 1.0
) -> Weights:
    """Return where the bytes of a checkpoint belong.

    Args:
        tensors: Headers of all files.
        layers: Of the language model; layers beyond them are drafts.
        tied: Whether the embedding's table is the head too; a head that was stored is not loaded.
        artifact: How weights are stored.
        padding: See `Weights.padding`.
    """
    parts = [Part() for _ in range(layers)]
    sums = dict.fromkeys(("embedding", "head", "rest", "other", "draft"), 0)
    counted = dict.fromkeys(("all", "experts", "table", "outside"), 0)
    by_dtype: dict[str, int] = {}
    for tensor in tensors:
        place, layer = _place(tensor.name, layers)
        if place == "head" and tied:
            continue
        by_dtype[tensor.dtype] = by_dtype.get(tensor.dtype, 0) + tensor.size
        count = _parameters(tensor, artifact)
        counted["all"] += count
        if place == "layer":
            _add(parts[layer], tensor)
            if ".experts." in tensor.name:
                counted["experts"] += count
            continue
        sums[place] += tensor.size
        if place in ("other", "draft"):
            counted["outside"] += count
        elif place == "embedding" and not tied:
            counted["table"] += count
    return Weights(
        layers=tuple(parts),
        embedding=sums["embedding"],
        head=sums["head"],
        rest=sums["rest"],
        other=sums["other"],
        draft=sums["draft"],
        parameters=counted["all"],
        expert_parameters=counted["experts"],
        table_parameters=counted["table"],
        outside_parameters=counted["outside"],
        padding=padding,
        by_dtype=dict(sorted(by_dtype.items())),
        tied=tied,
    )


def _place(name: str, layers: int) -> tuple[str, int]:
    if name.startswith("model.layers."):  # nearly all of them: a model of experts has 100,000
        number = name[13:].partition(".")[0]
        if number.isdigit():
            return ("layer", int(number)) if int(number) < layers else ("draft", -1)
    if _BESIDE.search(name):
        return "other", -1
    found = _LAYER.search(name)
    if _DRAFT.search(name) or (found and int(found[1]) >= layers):
        return "draft", -1
    if found:
        return "layer", int(found[1])
    if _EMBED.search(name):
        return "embedding", -1
    return ("head" if _HEAD.search(name) else "rest"), -1


def _add(part: Part, tensor: Header) -> None:
    if ".experts." in tensor.name:
        part.split += tensor.size
    elif len(tensor.shape) < 2 or _WHOLE.search(tensor.name):
        part.whole += tensor.size
    elif _KEYS.search(tensor.name):
        part.keys += tensor.size
    else:
        part.split += tensor.size


def _parameters(tensor: Header, artifact: str) -> int:
    """Return how many parameters a tensor holds: none if it only scales others."""
    last = tensor.name.rpartition(".")[2]
    if _SCALES.search(last):
        return 0
    count = 1
    for size in tensor.shape:
        count *= size
    packed = _PACKED.get(last, {}).get(tensor.dtype, 1)
    if tensor.dtype == "U8" and (last.endswith("_blocks") or artifact.endswith("nvfp4")):
        packed = 2
    return count * packed
