import pytest

from penstock.core.hardware import ACCELERATORS
from serving.sizing.choose import Plan, choose
from serving.sizing.load import Estimate, estimate
from serving.sizing.shape import Shape
from serving.sizing.wish import Load, Option, Place, Wish
from tests.unit.serving.sizing.published import shape

LLAMA = shape("meta-llama/Meta-Llama-3.1-8B")
H100 = ACCELERATORS["nvidia-h100-80gb"]


def _estimate(shape: Shape, load: Load | None, count: int = 1, context: int = 4096) -> Estimate:
    plan = choose(shape, Place(H100, count), [Option(shape.artifact)], Wish(context=context))
    assert isinstance(plan, Plan)
    return estimate(shape, H100, plan.trial, load)


def test_one_sequence_waits_for_the_weights_to_be_read() -> None:
    found = _estimate(LLAMA, None, context=131_072)
    least = LLAMA.weights.bytes / H100.bandwidth
    assert least < found.tpot_s
    assert found.tokens_per_s == pytest.approx(found.sequences / found.tpot_s)


def test_more_requests_need_more_replicas() -> None:
    one = _estimate(LLAMA, Load(1, 1000, 200))
    assert one.replicas == 1
    many = _estimate(LLAMA, Load(10 * one.requests_per_s, 1000, 200))
    assert many.replicas == 10
    longer = _estimate(LLAMA, Load(1, 4000, 800))
    assert longer.requests_per_s < one.requests_per_s


def test_experts_that_no_token_goes_to_are_not_read() -> None:
    moe, load = shape("Qwen/Qwen3-30B-A3B"), Load(1, 1000, 200)
    alone = choose(moe, Place(H100), [Option("bf16")], Wish(context=4096, concurrency=1))
    assert isinstance(alone, Plan)
    found = estimate(moe, H100, alone.trial, load)
    everything = moe.weights.bytes / (0.8 * H100.bandwidth)
    assert found.tpot_s < everything / 4


def test_devices_share_the_work_and_stages_take_turns() -> None:
    load = Load(1, 1000, 200)
    single, four = _estimate(LLAMA, load), _estimate(LLAMA, load, 4)
    assert four.prefill_per_s == pytest.approx(4 * single.prefill_per_s)
    assert four.tpot_s < single.tpot_s
    plan = choose(LLAMA, Place(H100, 4), [Option("bf16")], Wish(context=4096, pipeline_parallel=4))
    assert isinstance(plan, Plan)
    assert estimate(LLAMA, H100, plan.trial, load).tpot_s > four.tpot_s
