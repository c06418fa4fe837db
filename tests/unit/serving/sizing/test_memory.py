import pytest

from penstock.core.hardware import ACCELERATORS, Accelerator
from serving.sizing import memory
from serving.sizing.memory import GIB, Batch, Split
from serving.sizing.weights import stages_of
from tests.unit.serving.sizing.published import shape

LLAMA = shape("meta-llama/Meta-Llama-3.1-8B")
DEEPSEEK = shape("deepseek-ai/DeepSeek-V3")
GPT_OSS = shape("openai/gpt-oss-120b")
BATCH = Batch(256, 2048)


def test_keys_and_values_of_a_token() -> None:
    """32 layers x 8 heads x 128 x 2 x 2 bytes: the Llama 3 paper's grouped attention."""
    assert memory.token_bytes(LLAMA, Split(), BATCH) == 131_072
    assert memory.token_bytes(LLAMA, Split(4), BATCH) == 131_072 / 4
    assert memory.token_bytes(LLAMA, Split(1, 2), BATCH) == 131_072 / 2
    assert memory.token_bytes(LLAMA, Split(), Batch(256, 2048, kv_bytes=1)) == 131_072 / 2


def test_heads_are_not_split_below_one() -> None:
    assert memory.token_bytes(LLAMA, Split(16), BATCH) == memory.token_bytes(LLAMA, Split(8), BATCH)


def test_a_latent_is_whole_on_every_device() -> None:
    """61 layers x (512 + 64) x 2 bytes: DeepSeek-V3's report, table of MLA."""
    assert memory.token_bytes(DEEPSEEK, Split(), BATCH) == 61 * 576 * 2
    assert memory.token_bytes(DEEPSEEK, Split(8), BATCH) == 61 * 576 * 2


def test_a_window_stops_growing() -> None:
    """18 of 36 layers see 128 tokens; the steps under way keep theirs."""
    assert memory.token_bytes(GPT_OSS, Split(), BATCH) == 18 * 8 * 128 * 2
    short = memory.sequence_bytes(GPT_OSS, Split(), BATCH, 64)
    assert short == 18 * 8 * 128 * 2 * 64 + 18 * 8 * 128 * 2 * 80  # a window needs a block more


def test_blocks_are_whole() -> None:
    one, sixteen = (memory.sequence_bytes(LLAMA, Split(), BATCH, n) for n in (1, 16))
    assert one == sixteen == 16 * 131_072


def test_weights_are_split_but_for_what_is_whole() -> None:
    whole = memory.weights(LLAMA, Split()).bytes
    assert whole == LLAMA.weights.bytes
    half = memory.weights(LLAMA, Split(2)).bytes
    assert half == pytest.approx(whole / 2, rel=1e-4)
    assert half > whole / 2  # norms
    heads = memory.weights(LLAMA, Split(16)).bytes * 16 - whole
    projections = 32 * 2 * 1024 * 4096 * 2
    assert heads == pytest.approx(projections, rel=0.05)  # keys and values lie there twice


def test_the_fullest_stage_counts() -> None:
    layer = sum(p.split + p.keys + p.whole for p in LLAMA.weights.layers[:1])
    expected = 16 * layer + max(LLAMA.weights.embedding, LLAMA.weights.head + LLAMA.weights.rest)
    assert memory.weights(LLAMA, Split(1, 2)).bytes == expected


def test_quantized_layers_shrink_and_tables_do_not() -> None:
    found = memory.weights(LLAMA, Split(), 8.0, "fp8-dynamic")
    tables = LLAMA.weights.embedding + LLAMA.weights.head
    layers = LLAMA.weights.bytes - tables
    assert found.bytes == pytest.approx(tables + layers / 2, rel=1e-4)
    assert "fp8-dynamic" in found.formula


@pytest.mark.parametrize(
    ("layers", "stages", "expected"),
    [
        (4, 1, [(0, 4)]),
        (61, 2, [(0, 31), (31, 61)]),
        (62, 4, [(0, 15), (15, 31), (31, 47), (47, 62)]),
    ],
)
def test_stages_are_those_of_vllm(
    layers: int, stages: int, expected: list[tuple[int, int]]
) -> None:
    assert stages_of(layers, stages) == expected


def test_defaults_follow_the_device() -> None:
    tokens = {name: memory.batch_tokens(gpu) for name, gpu in ACCELERATORS.items() if gpu.sm}
    assert tokens["nvidia-l4"] == tokens["nvidia-a100-80gb"] == 2048
    assert tokens["nvidia-h100-80gb"] == 8192
    assert tokens["nvidia-b200-180gb"] == 16384


def test_more_at_once_needs_more() -> None:
    small, large = (memory.activations(LLAMA, Split(), Batch(n, 2048)).bytes for n in (8, 1024))
    assert large == 14 * 1024 * LLAMA.vocab
    assert small < large
    assert memory.graphs(Batch(8, 2048)).bytes < memory.graphs(BATCH).bytes
    assert memory.graphs(BATCH).bytes == memory.graphs(Batch(1024, 2048)).bytes
    assert memory.framework(Split(1)).bytes < memory.framework(Split(2)).bytes < 1.0 * GIB


@pytest.mark.parametrize(
    "gpu", [gpu for gpu in ACCELERATORS.values() if gpu.sm], ids=lambda gpu: gpu.name
)
def test_a_device_shows_less_than_its_name_and_has_what_estimates_need(gpu: Accelerator) -> None:
    assert 0.9 * gpu.memory_gib < gpu.visible_gib < gpu.memory_gib
    assert gpu.bandwidth > 0
    assert gpu.bf16_flops > 0
    assert bool(gpu.fp8_flops) == (gpu.sm is not None and gpu.sm >= 89)
    assert gpu.nvlink in (1, 8)
