"""What Penstock's CPU engine needs of the machine's memory, term by term.

Measured by `python -m benchmarks.sizing`, the whole process: never more than this, and at most 5 %
less (5.1 % for a model of two million parameters, which is nearly all floor).
"""

from __future__ import annotations

from serving.sizing.memory import MIB, Item
from serving.sizing.shape import Shape

FLOOR = 930_000_000
"""Python, torch and transformers before any model: measured, mapped libraries included."""

LONGEST_CONTEXT = 8192
BLOCK_TOKENS, SMALLEST_BLOCKS, STEP_TOKENS = 32, 128, 512
"""Of the engine: `serving/engine/loading.py` and `batcher.py`, tested to be the same."""

_FLOAT = 4
_TRASH_BLOCKS, _STREAMS = 2, 16
_SPARE, _SPARE_SHARE = 16 * MIB, 0.005


def cache_tokens(context: int) -> int:
    """Return the tokens that the cache holds: two of the longest requests, 4,096 at least."""
    blocks = -(-min(context, LONGEST_CONTEXT) // BLOCK_TOKENS)
    return max(SMALLEST_BLOCKS, 2 * blocks) * BLOCK_TOKENS


def items(shape: Shape) -> tuple[Item, ...]:
    """Return what the engine needs above its floor."""
    found = _parts(shape)
    spare = _SPARE + _SPARE_SHARE * sum(item.bytes for item in found)
    told = f"16 MiB and {_SPARE_SHARE:.1%}: the allocator's rounding, and what runs differ by"
    return (*found, Item("spare", spare, told, "measured"))


def _parts(shape: Shape) -> tuple[Item, ...]:
    pages = cache_tokens(shape.context)
    parameters = shape.parameters
    kept = sum(layer.heads * layer.width for layer in shape.layers)
    stored = (pages + _TRASH_BLOCKS * BLOCK_TOKENS) * kept * _FLOAT
    mask = STEP_TOKENS * (pages + STEP_TOKENS) * _FLOAT
    return (
        Item(
            "weights",
            parameters * _FLOAT,
            f"{parameters:,} parameters x 4 bytes",
            "serving/engine/loading.py: float32 whatever the checkpoint's type",
        ),
        Item(
            "KV cache",
            stored,
            f"({pages:,} + {_TRASH_BLOCKS * BLOCK_TOKENS} tokens) x {kept:,} values x 4 bytes",
            "serving/engine/batcher.py; transformers 5.17, PagedAttentionCache",
        ),
        Item(
            "attention mask",
            mask,
            f"{STEP_TOKENS} x ({pages:,} + {STEP_TOKENS}) x 4 bytes",
            "transformers 5.17, ContinuousBatchingIOs",
        ),
        _step(shape, pages),
    )


def _step(shape: Shape, pages: int) -> Item:
    """Return what one step writes beside the mask, at most.

    The allocator keeps what was freed, so the parts of a layer add up: keys and values as they are
    read, and repeated for every head; the MLP; hidden states; and the logits of a full batch.
    """
    tokens = pages + STEP_TOKENS
    read = max(layer.heads * layer.width for layer in shape.layers)
    head = max(layer.width // 2 for layer in shape.layers)
    attention = tokens * (read + 2 * shape.heads * head)
    mlp = STEP_TOKENS * 3 * shape.intermediate
    hidden = STEP_TOKENS * (4 * shape.hidden + 2 * shape.heads * head)
    logits = _STREAMS * shape.vocab * 3
    return Item(
        "step",
        (attention + mlp + hidden + logits) * _FLOAT,
        f"4 B x (attention {attention:,} + MLP {mlp:,} + states {hidden:,} + logits {logits:,})",
        "transformers 5.17, integrations/sdpa_paged.py; measured",
    )


def above_floor(shape: Shape) -> float:
    """Return the sum of all items."""
    return sum(item.bytes for item in items(shape))


def whole(shape: Shape) -> tuple[Item, ...]:
    """Return everything that the process needs, its floor included."""
    floor = Item("floor", FLOOR, "Python, torch and transformers", "measured: benchmarks.sizing")
    weights, *others = items(shape)
    return (weights, *others, floor)
