from pathlib import Path

import pytest

from serving.sizing.choose import Plan, Refusal
from serving.sizing.memory import GIB, Batch, Split, token_bytes, weights
from serving.sizing.shape import KNOWN
from serving.sizing.trial import NODE
from tests.unit.serving.sizing.published import Need, Published, published, shape
from tests.unit.serving.sizing.table import PATH, render

_EVERY = [pytest.param(each, id=each.name) for each in published()]
_STATED = [(each, need) for each in published() for need in each.needs]
_LEAST = [(each, need) for each, need in _STATED if need.least]


def _named(each: object) -> str:
    return each.name if isinstance(each, Published) else getattr(each, "says", "")


def test_enough_models_and_most_of_them_say_what_they_need() -> None:
    assert len(published()) >= 20
    assert sum(bool(each.needs) for each in published()) >= 20


def test_a_family_is_known_if_it_was_checked() -> None:
    assert {each.config["model_type"] for each in published()} == KNOWN


@pytest.mark.parametrize("model", _EVERY)
def test_parameters_are_those_that_are_published(model: Published) -> None:
    assert model.shape.parameters == pytest.approx(model.parameters, rel=0.01)
    assert not model.shape.guesses


@pytest.mark.parametrize(("model", "need"), _STATED, ids=_named)
def test_fits_where_its_makers_say_it_does(model: Published, need: Need) -> None:
    found = model.plan(need)
    assert isinstance(found, Plan)
    if need.gb:
        needed = found.trial.fixed * found.split.devices / 1e9
        # recipes take 1.2 times the weights; what is beside them is more of a small model
        assert 0.75 * need.gb <= needed <= 1.3 * need.gb


@pytest.mark.parametrize(("model", "need"), _LEAST, ids=_named)
def test_does_not_fit_on_half_of_the_least_devices(model: Published, need: Need) -> None:
    found = model.plan(need, need.count // 2)
    assert isinstance(found, Refusal)
    count = f"hardware.count: {need.count}"
    nodes = f" and hardware.nodes: {need.count // NODE}" if need.count > NODE else ""
    assert count + nodes in [change.what for change in found.changes]


def test_gpt_oss_lies_in_a_device_as_vllm_logged_it() -> None:
    """vllm#23278: "Model loading took 65.9651 GiB", Marlin, one H100; 60.8 GiB on disk."""
    gpt = shape("openai/gpt-oss-120b")
    assert gpt.weights.bytes / GIB == pytest.approx(60.8, abs=0.1)
    assert weights(gpt, Split()).bytes / GIB == pytest.approx(65.9651, rel=0.01)


def test_gpt_oss_on_one_h100_wants_what_its_recipe_says() -> None:
    """vllm-project/recipes, gpt-oss-120b: "H100 TP1 OOM: --gpu-memory-utilization 0.95"."""
    model = next(each for each in published() if each.name == "openai/gpt-oss-120b")
    found = model.plan(Need("nvidia-h100-80gb", 1, "", "", context=131_072))
    assert isinstance(found, Refusal)
    assert "serving.memory_share: 0.95" in [change.what for change in found.changes]


def test_a_million_tokens_of_minimax_take_what_its_makers_say() -> None:
    """vllm-project/recipes, MiniMax-M2: 240 GB per 1M tokens of context."""
    minimax = shape("MiniMaxAI/MiniMax-M2.5")
    every = token_bytes(minimax, Split(), Batch(1, 2048)) * 1e6
    assert every / GIB == pytest.approx(240, rel=0.02)


def test_minimax_is_not_split_over_eight() -> None:
    """vllm-project/recipes, MiniMax-M2.5: TP 8 fails, 1536 / 8 is not divisible by 128."""
    need = Need("nvidia-h100-80gb", 8, "", "")
    model = next(each for each in published() if each.name == "MiniMaxAI/MiniMax-M2.5")
    found = model.plan(need)
    assert isinstance(found, Plan)
    assert found.split == Split(4, 2)
    assert "192" in next(each.why for each in found.rejected if each.what.endswith("tp 8"))


def test_the_table_is_up_to_date() -> None:
    assert Path(PATH).read_text() == render(), "run make golden"
