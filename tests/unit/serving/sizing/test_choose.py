from dataclasses import replace

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.core.errors import ConfigurationError
from penstock.core.hardware import ACCELERATORS
from serving.sizing.choose import Plan, Refusal, choose
from serving.sizing.shape import Shape
from serving.sizing.wish import Change, Option, Place, Wish
from tests.unit.serving.sizing.published import shape

LLAMA8 = shape("meta-llama/Meta-Llama-3.1-8B")
LLAMA70 = shape("meta-llama/Meta-Llama-3.1-70B")
QWEN32 = shape("Qwen/Qwen3-32B")
CAME, FP8, INT4 = Option("bf16"), Option("fp8-dynamic", 8.0), Option("w4a16", 4.125)


def _place(name: str, count: int = 1) -> Place:
    return Place(ACCELERATORS[name], count)


def _plan(shape: Shape, place: Place, *options: Option, wish: Wish = Wish()) -> Plan:  # noqa: B008
    found = choose(shape, place, options or [CAME], wish)
    assert isinstance(found, Plan)
    return found


def _refusal(
    shape: Shape,
    place: Place,
    *options: Option,
    wish: Wish = Wish(),  # noqa: B008 - frozen
    others: tuple[Option, ...] = (),
) -> Refusal:
    found = choose(shape, place, options or [CAME], wish, others)
    assert isinstance(found, Refusal)
    return found


def test_the_checkpoint_as_it_came_wins_where_it_fits() -> None:
    found = _plan(LLAMA8, _place("nvidia-l40s"), CAME, FP8, INT4)
    assert found.trial.option == CAME
    assert found.trial.context == 131_072
    assert [each.what for each in found.rejected] == ["fp8-dynamic, tp 1", "w4a16, tp 1"]
    assert all("fits too" in each.why for each in found.rejected)


def test_fewer_bits_win_where_it_does_not() -> None:
    found = _plan(QWEN32, _place("nvidia-l40s"), CAME, FP8, INT4)
    assert found.trial.option == FP8
    assert "more than 92%" in found.rejected[0].why
    assert any("evaluation refuses fp8-dynamic" in each for each in found.warnings)


def test_the_context_shrinks_to_what_fits() -> None:
    found = _plan(LLAMA8, _place("nvidia-l4"))
    assert 2048 <= found.trial.context < 131_072
    assert any("131,072" in each for each in found.reasons)
    more = replace(found.trial, context=found.trial.context + 1024)
    grown = more.sequence / found.trial.context * more.context
    assert found.trial.sequence <= found.trial.room < grown


def test_all_devices_are_used_and_fewer_are_told() -> None:
    found = _plan(LLAMA8, _place("nvidia-h100-80gb", 4))
    assert (found.split.tensor, found.split.pipeline) == (4, 1)
    assert any("1 device would do" in each for each in found.reasons)


def test_sixteen_devices_are_two_stages() -> None:
    found = _plan(LLAMA70, _place("nvidia-h100-80gb", 16))
    assert (found.split.tensor, found.split.pipeline) == (8, 2)
    assert any("hardware.nodes: 2 spreads them" in each for each in found.warnings)


def test_a_stage_stays_inside_its_node() -> None:
    two = replace(_place("nvidia-h100-80gb", 8), nodes=2)
    found = _plan(LLAMA70, two)
    assert (found.split.tensor, found.split.pipeline) == (4, 2)
    assert any("network between nodes" in each for each in found.warnings)
    assert not any("hardware.nodes" in each for each in found.warnings)
    with pytest.raises(ConfigurationError, match="2 nodes of 4"):
        choose(LLAMA70, two, [CAME], Wish(tensor_parallel=8))


def test_without_nvlink_that_is_told() -> None:
    assert any("no NVLink" in w for w in _plan(LLAMA8, _place("nvidia-l4", 2)).warnings)
    assert not _plan(LLAMA8, _place("nvidia-a100-40gb", 2)).warnings


def test_more_devices_than_heads_of_keys_are_told() -> None:
    qwen = shape("Qwen/Qwen3-30B-A3B")
    found = _plan(qwen, _place("nvidia-h100-80gb", 8))
    assert any("kept 2 times" in each for each in found.warnings)


def test_what_a_person_split_is_kept() -> None:
    wish = Wish(tensor_parallel=2, pipeline_parallel=2)
    found = _plan(LLAMA70, _place("nvidia-h100-80gb", 4), wish=wish)
    assert (found.split.tensor, found.split.pipeline) == (2, 2)
    half = _plan(LLAMA70, _place("nvidia-h100-80gb", 4), wish=Wish(pipeline_parallel=2))
    assert half.split == found.split


@pytest.mark.parametrize(
    ("wish", "count", "told", "hint"),
    [
        (Wish(context=200_000), 1, "made for 131,072 tokens", "at most 131,072"),
        (Wish(tensor_parallel=3), 3, "does not divide the 64 heads", "tensor_parallel: 2"),
        (Wish(tensor_parallel=16), 16, "a node has 8 devices", "tensor_parallel: 8"),
        (Wish(tensor_parallel=2), 1, "hardware.count is 1", "hardware.count: 2"),
        (
            Wish(tensor_parallel=2, pipeline_parallel=2),
            8,
            "= 4, but hardware.count is 8",
            "hardware.count: 4",
        ),
    ],
)
def test_what_no_device_could_do_is_refused(wish: Wish, count: int, told: str, hint: str) -> None:
    with pytest.raises(ConfigurationError, match=told) as caught:
        choose(LLAMA70, _place("nvidia-h200-141gb", count), [CAME], wish)
    assert hint in caught.value.hint


def test_heads_of_keys_are_divided_or_repeated() -> None:
    scout = shape("meta-llama/Llama-4-Scout-17B-16E-Instruct")  # 40 heads, 8 of keys
    with pytest.raises(ConfigurationError, match="neither divides the 8 heads of keys") as caught:
        choose(scout, _place("nvidia-h200-141gb", 5), [CAME], Wish(tensor_parallel=5))
    assert "tensor_parallel: 4" in caught.value.hint


def test_blocks_of_weights_are_not_cut() -> None:
    coder = shape("Qwen/Qwen3-235B-A22B-FP8")  # experts of 1,536: 192 each would be 1.5 blocks
    with pytest.raises(ConfigurationError, match="whole blocks of 128") as caught:
        choose(coder, _place("nvidia-h200-141gb", 8), [CAME], Wish(tensor_parallel=8))
    assert "tensor_parallel: 4" in caught.value.hint


IMPOSSIBLE = [
    (LLAMA70, _place("nvidia-h100-80gb"), Wish()),
    (LLAMA70, _place("nvidia-a100-80gb", 2), Wish(context=65_536)),
    (LLAMA8, _place("nvidia-l4"), Wish(context=131_072)),
    (LLAMA8, _place("nvidia-l40s"), Wish(context=32_768, concurrency=64)),
    (shape("openai/gpt-oss-120b"), _place("nvidia-h100-80gb"), Wish(context=131_072)),
    (shape("moonshotai/Kimi-K2-Instruct"), _place("nvidia-h200-141gb", 8), Wish(context=131_072)),
    (QWEN32, _place("nvidia-l40s", 2), Wish(tensor_parallel=2, context=40_960, concurrency=9)),
    (LLAMA8, _place("nvidia-a100-40gb"), Wish(kv_cache="fp8")),
    (LLAMA8, _place("nvidia-h100-80gb"), Wish(memory_share=0.1)),
    (shape("moonshotai/Kimi-K2-Instruct"), _place("nvidia-l4"), Wish()),
]


def _changed(place: Place, wish: Wish, change: Change) -> tuple[Place, Wish, str]:
    """Apply a change as a person would write it into model.yaml."""
    field, _, value = change.what.removeprefix("serving.").partition(": ")
    free = replace(wish, tensor_parallel=None, pipeline_parallel=None)
    if field == "hardware.count":
        value, split, _ = value.partition(", without tensor_parallel")
        count, _, nodes = value.partition(" and hardware.nodes: ")
        more = replace(place, count=int(count), nodes=int(nodes or place.nodes))
        return more, free if split else wish, ""
    if field == "hardware":
        body = yaml.safe_load(value)
        gpu, nodes = ACCELERATORS[body["accelerator"]], body.get("nodes", 1)
        return Place(gpu, body["count"], nodes=nodes), free, ""
    if field == "hardware.accelerator":
        return replace(place, gpu=ACCELERATORS[value]), wish, ""
    wishes = {
        "precision": lambda: wish,
        "kv_cache": lambda: replace(wish, kv_cache="auto" if value == "auto" else "fp8"),
        "memory_share": lambda: replace(wish, memory_share=yaml.safe_load(value)),
        "context": lambda: replace(wish, context=int(value)),
        "concurrency": lambda: replace(wish, concurrency=int(value)),
    }
    return place, wishes[field](), value if field == "precision" else ""


@pytest.mark.parametrize(("shape", "place", "wish"), IMPOSSIBLE)
def test_every_change_that_is_named_works(shape: Shape, place: Place, wish: Wish) -> None:
    came = Option(shape.artifact)
    others = () if shape.quantized else (FP8, INT4)
    found = _refusal(shape, place, came, wish=wish, others=others)
    assert found.changes
    for change in found.changes:
        where, wanted, precision = _changed(place, wish, change)
        options = [each for each in others if each.name == precision] or [came]
        assert isinstance(choose(shape, where, options, wanted), Plan), change.what


@pytest.mark.parametrize(
    ("shape", "place", "wish", "why", "first"),
    [
        (
            LLAMA70,
            _place("nvidia-h100-80gb"),
            Wish(),
            "bf16, tp 1 on 1 x nvidia-h100-80gb: 134.9 GiB beside the KV cache, 62.1 more than 92%"
            " of a device's 79.1 GiB",
            "hardware.count: 2",
        ),
        (
            LLAMA8,
            _place("nvidia-l4"),
            Wish(context=131_072),
            "bf16, tp 1 on 1 x nvidia-l4: 1 x 16.00 GiB for sequences of 131,072 tokens do not fit"
            " into the 3.1 GiB that are left",
            "serving.context: 24576",
        ),
        (
            LLAMA8,
            _place("nvidia-a100-40gb"),
            Wish(kv_cache="fp8"),
            "bf16, tp 1 on 1 x nvidia-a100-40gb: an FP8 KV cache needs SM 89, nvidia-a100-40gb has"
            " 80; allowed: auto",
            "serving.kv_cache: auto",
        ),
        (
            LLAMA8,
            _place("nvidia-h100-80gb"),
            Wish(memory_share=0.1),
            "bf16, tp 1 on 1 x nvidia-h100-80gb: 17.6 GiB beside the KV cache, 9.7 more than 10%"
            " of a device's 79.1 GiB",
            "serving.memory_share: null",
        ),
        (
            shape("moonshotai/Kimi-K2-Instruct"),
            _place("nvidia-l4"),
            Wish(),
            "bf16, tp 1 on 1 x nvidia-l4: 960.8 GiB beside the KV cache, 940.6 more than 92% of a"
            " device's 22.0 GiB",
            "hardware: {accelerator: nvidia-h200-141gb, count: 8}",
        ),
    ],
)
def test_an_impossible_request_is_explained_with_the_smallest_change(
    shape: Shape, place: Place, wish: Wish, why: str, first: str
) -> None:
    found = _refusal(shape, place, wish=wish)
    assert found.why == why
    assert found.changes[0].what == first


def test_the_change_that_asks_for_least_comes_first() -> None:
    wish = Wish(context=65_536)
    found = _refusal(LLAMA8, _place("nvidia-l4"), wish=wish, others=(FP8, INT4))
    kinds = [each.what.partition(":")[0] for each in found.changes]
    assert kinds[0] == "serving.context"
    assert kinds[-1] == "hardware.accelerator"
    assert kinds.index("precision") < kinds.index("hardware.count")
    assert "left" in found.why


def test_the_next_number_of_devices_is_the_smallest_that_works() -> None:
    found = _refusal(LLAMA70, _place("nvidia-l40s"))
    counts = [c.what for c in found.changes if c.what.startswith("hardware.count")]
    assert counts == ["hardware.count: 4"]
    assert isinstance(choose(LLAMA70, _place("nvidia-l40s", 2), [CAME], Wish()), Refusal)


def test_ampere_keeps_its_cache_in_16_bits() -> None:
    found = _refusal(LLAMA8, _place("nvidia-a100-40gb"), wish=Wish(kv_cache="fp8"))
    assert "SM 89" in found.why


def test_a_cache_in_8_bits_holds_twice_as_much() -> None:
    place, wish = _place("nvidia-l40s"), Wish(context=8192)
    plain = _plan(LLAMA8, place, wish=wish).trial.concurrency
    half = _plan(LLAMA8, place, wish=replace(wish, kv_cache="fp8")).trial.concurrency
    assert half // 2 == plain


@settings(max_examples=40)
@given(
    st.sampled_from(
        [LLAMA8, QWEN32, shape("Qwen/Qwen3-235B-A22B-FP8"), shape("openai/gpt-oss-20b")]
    ),
    st.sampled_from([name for name, gpu in ACCELERATORS.items() if gpu.sm]),
    st.sampled_from([1, 2, 3, 4, 8, 16]),
    st.builds(
        Wish,
        context=st.none() | st.integers(16, 40_960),
        concurrency=st.none() | st.integers(1, 300),
        memory_share=st.none() | st.floats(0.3, 0.98),
    ),
)
def test_a_plan_never_holds_more_than_its_devices(
    shape: Shape, gpu: str, count: int, wish: Wish
) -> None:
    found = choose(shape, _place(gpu, count), [Option(shape.artifact)], wish)
    if isinstance(found, Refusal):
        assert found.why
        return
    trial = found.trial
    used = trial.fixed + max(trial.concurrency, wish.concurrency or 1) * trial.sequence
    assert used <= trial.share * trial.visible
    assert trial.split.devices == count
    assert shape.heads % trial.split.tensor == 0
    assert 0 < trial.context <= shape.context
    assert trial.concurrency >= (wish.concurrency or 1)
    assert wish.context in (None, trial.context)
