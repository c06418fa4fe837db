"""What lies in one GPU's memory beside the weights, term by term, each with its source.

The engine meant is vLLM 0.33; the others differ in the share of memory they take (`SHARES`).
Names in sources are files below `vllm/`.
"""

from __future__ import annotations

from dataclasses import dataclass

from penstock.core.hardware import Accelerator
from serving.sizing.shape import Shape
from serving.sizing.weights import stages_of

GIB = 1 << 30
MIB = 1 << 20
BLOCK_TOKENS = 16
"""Of the KV cache: `config/cache.py: DEFAULT_BLOCK_SIZE`."""

SHARES = {"vllm": 0.92, "triton": 0.92}
"""Share of a device's memory that an engine takes by itself: `config/cache.py`,
`gpu_memory_utilization`, 0.92 since 0.22."""

OTHER_SHARE = 0.9
"""Of the other engines: TensorRT-LLM's `free_gpu_memory_fraction`; taken for SGLang and TGI too."""

LARGE_GIB, HUGE_GIB = 70, 160
_ACTIVATIONS = "layers/activation.py, fused_moe/experts/triton_moe.py, v1/sample/sampler.py"
_GRAPHS = "fitted to published logs: vllm#39559, vllm#27508"
_FRAMEWORK = "measured by aiconfigurator, systems/*.yaml @095f58a"


@dataclass(frozen=True, slots=True)
class Item:
    """One term of the sum."""

    name: str
    bytes: float
    formula: str
    """The arithmetic itself, with its numbers."""

    source: str


@dataclass(frozen=True, slots=True)
class Split:
    """How a replica lies on its devices."""

    tensor: int = 1
    pipeline: int = 1

    @property
    def devices(self) -> int:
        """Of one replica."""
        return self.tensor * self.pipeline

    def __str__(self) -> str:
        return f"tp {self.tensor}" + (f", pp {self.pipeline}" if self.pipeline > 1 else "")


@dataclass(frozen=True, slots=True)
class Batch:
    """How much is computed at once."""

    sequences: int
    """`--max-num-seqs`."""

    tokens: int
    """`--max-num-batched-tokens`: of one step, over all sequences."""

    kv_bytes: int = 2
    """Of a value in the KV cache: 2, or 1 for FP8."""


def batch_tokens(gpu: Accelerator) -> int:
    """Return vLLM's default of `max_num_batched_tokens` for its server.

    `engine/arg_utils.py: get_batch_defaults`: 16,384 from 160 GiB on, 8,192 from 70 GiB on but not
    on an A100, else 2,048.
    """
    if gpu.memory_gib >= HUGE_GIB:
        return 16384
    return 8192 if gpu.memory_gib >= LARGE_GIB and "a100" not in gpu.name else 2048


def weights(shape: Shape, split: Split, bits: float = 0.0, label: str = "") -> Item:
    """Return the weights on the fullest device.

    Args:
        shape: The model.
        split: Over devices.
        bits: Per weight of the layers' matrices after quantization; 0: as they came.
        label: Name of that precision.
    """
    shrink = bits / 16 if bits else 1.0
    heads = min((each.heads for each in shape.layers if each.width), default=1)
    found = shape.weights.on_fullest_device(split.tensor, split.pipeline, heads, shrink)
    as_it_came = f"{shape.weights.bytes / 1e9:.2f} GB in {shape.artifact}"
    told = f"{as_it_came}, layers' matrices at {bits:.3g} bits ({label})" if bits else as_it_came
    padded = f", experts padded by {shape.weights.padding - 1:.1%}"
    return Item(
        "weights",
        found,
        f"{told} over {split}{padded if shape.weights.padding > 1 else ''}",
        "headers of the safetensors files; linear.py, vocab_parallel_embedding.py",
    )


def activations(shape: Shape, split: Split, batch: Batch) -> Item:
    """Return the peak of one step: the widest layer, or the sampler, whichever is more.

    The layer: residual, input and output, and the MLP's two intermediates (`layers/activation.py`),
    for experts both workspaces (`fused_moe/experts/triton_moe.py: workspace_shapes`), in 16 bits.
    The sampler: logits in 16 and 32 bits, probabilities, and the noise they are drawn with
    (`v1/sample/sampler.py`, `ops/topk_topp_sampler.py`): 14 bytes per sequence and word. Versions
    that sort (before Triton's top-k) take 36: gpt-oss-120b on an H100, 1,024 sequences, vllm#27508.
    """
    width, tensor = shape.hidden, split.tensor
    mlp = 3 * shape.intermediate / tensor
    if shape.experts:
        inner = shape.expert_width / tensor
        mlp = shape.experts_per_token * (max(2 * inner, width) + max(inner, width)) + width
    kept = max((each.heads * each.width for each in shape.layers), default=0)
    heads = (2 * shape.heads * _head_width(shape) + kept) / tensor
    layer = 2 * batch.tokens * (3 * width + max(mlp, heads))
    sampler = 14.0 * batch.sequences * shape.vocab
    formula = (
        f"max(layer: 2 B x {batch.tokens:,} tokens x ({3 * width:,} + {max(mlp, heads):,.0f}) = "
        f"{layer / GIB:.2f} GiB, sampler: 14 B x {batch.sequences:,} sequences x {shape.vocab:,} "
        f"words = {sampler / GIB:.2f} GiB)"
    )
    return Item("activations", max(layer, sampler), formula, _ACTIVATIONS)


def graphs(batch: Batch) -> Item:
    """Return what CUDA graphs keep: fitted to published logs, not derived.

    Captured are sizes up to twice the sequences, 512 at most, every 8 to 256 and every 16 beyond
    (`config/vllm.py: _set_cudagraph_sizes`). Published: 0.31 GiB for 11 sizes, 0.73 for 51 + 35
    (vllm#39559), 0.66 (vllm#27508), 0.96 to 1.10 for 30B experts. So: 0.3 GiB, and 0.8 for all.
    """
    largest = min(2 * batch.sequences, 512)
    sizes = 3 + min(largest, 256) // 8 + max(largest - 256, 0) // 16
    found = (0.3 + 0.8 * min(sizes / 51, 1)) * GIB
    formula = f"0.3 GiB + 0.8 GiB x {sizes} of 51 sizes"
    return Item("CUDA graphs", found, formula, _GRAPHS)


def framework(split: Split) -> Item:
    """Return CUDA's context, cuBLAS and the attention backend's buffers, and NCCL's.

    551 MiB, and NCCL 342 MiB between 2 devices, 392 between more: measured by aiconfigurator
    (systems/*.yaml @095f58a, which reserves 3.5 GiB to be safe). In published logs of vLLM: 0.05 to
    0.62 GiB alone, 0.93 to 2.15 over nodes; so 1.2 GiB more across pipeline stages.
    """
    nccl = {1: 0, 2: 342}.get(split.devices, 392)
    nodes = 1229 if split.pipeline > 1 else 0
    formula = f"551 MiB + NCCL {nccl} MiB" + (f" + {nodes} MiB between stages" if nodes else "")
    return Item("framework", (551 + nccl + nodes) * MIB, formula, _FRAMEWORK)


def spare() -> Item:
    """Return what vLLM itself advises to leave: `v1/worker/gpu_worker.py`, 150 MiB."""
    return Item("spare", 150 * MIB, "150 MiB", "v1/worker/gpu_worker.py: redundancy buffer")


def sequence_bytes(shape: Shape, split: Split, batch: Batch, tokens: int) -> int:
    """Return the KV cache that one sequence needs on the fullest device.

    Full attention: whole blocks of 16 tokens. A window: what it keeps, and the tokens of the steps
    under way (`v1/kv_cache_interface.py: SlidingWindowSpec`). A latent: the same on every device.
    Heads are never split below one (`config/model.py: get_num_kv_heads`).
    """
    steps = max(2, split.pipeline)  # scheduling is asynchronous
    stages = stages_of(len(shape.layers), split.pipeline)
    return max(
        sum(_layer_bytes(shape, i, split, batch, tokens, steps) for i in range(start, end))
        for start, end in stages
    )


def token_bytes(shape: Shape, split: Split, batch: Batch) -> float:
    """Return what one more token of a long sequence adds, on the fullest device."""
    long, more = shape.context + 64 * BLOCK_TOKENS, 64 * BLOCK_TOKENS
    added = sequence_bytes(shape, split, batch, long + more) - sequence_bytes(
        shape, split, batch, long
    )
    return added / more


def _layer_bytes(
    shape: Shape, index: int, split: Split, batch: Batch, tokens: int, steps: int
) -> int:
    layer = shape.layers[index]
    if layer.kind == "state":
        return -(-layer.state_bytes // split.tensor)
    heads = max(1, layer.heads // split.tensor)
    each = heads * layer.width * batch.kv_bytes + layer.index_bytes
    kept = tokens
    if layer.kind == "window":
        kept = min(layer.window - 1 + steps * batch.tokens, tokens) + BLOCK_TOKENS
    return -(-kept // BLOCK_TOKENS) * BLOCK_TOKENS * each


def _head_width(shape: Shape) -> int:
    """Return the width of one query head; a latent's is what it is unfolded to, 256 at most."""
    widths = [each.width // 2 for each in shape.layers if each.kind in ("full", "window")]
    return max(widths, default=256)
