import pytest

from serving.engine import batcher, loading
from serving.sizing import host
from serving.sizing.shape import shape_of
from tests.unit.serving.sizing.checkpoints import tensors
from tests.unit.serving.sizing.test_shape import LLAMA

SHAPE = shape_of(LLAMA, tensors(LLAMA))


def test_the_engines_numbers_are_the_engines() -> None:
    assert host.BLOCK_TOKENS == batcher.BLOCK_TOKENS
    assert host.SMALLEST_BLOCKS == batcher.SMALLEST_CACHE_BLOCKS
    assert host.LONGEST_CONTEXT == loading.LONGEST_CONTEXT


@pytest.mark.parametrize(
    ("context", "tokens"), [(512, 4096), (2048, 4096), (4096, 8192), (100_000, 16_384)]
)
def test_the_cache_holds_two_of_the_longest_requests(context: int, tokens: int) -> None:
    assert host.cache_tokens(context) == tokens


def test_weights_are_float32_whatever_they_came_in() -> None:
    found = {item.name: item.bytes for item in host.items(SHAPE)}
    assert found["weights"] == SHAPE.parameters * 4
    assert found["KV cache"] == (4096 + 64) * 4 * 2 * 16 * 4
    assert host.above_floor(SHAPE) == sum(found.values())
    assert sum(item.bytes for item in host.whole(SHAPE)) == host.above_floor(SHAPE) + host.FLOOR
