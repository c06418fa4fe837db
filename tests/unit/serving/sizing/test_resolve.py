import pytest

from penstock.core.matrix import judge
from penstock.core.recipes import DEFAULTS
from serving.sizing.resolve import engine_for, options_for

H100, L40S, A100 = "nvidia-h100-80gb", "nvidia-l40s", "nvidia-a100-80gb"


def test_auto_is_vllm_where_it_runs_the_checkpoint() -> None:
    found = engine_for("auto", "bf16", H100)
    assert (found.name, found.ok, found.rejected) == ("vllm", True, ())


def test_auto_is_what_runs_the_checkpoint() -> None:
    found = engine_for("auto", "modelopt-int4-awq", H100)
    assert found.name == "tensorrt-llm"
    assert [each.what for each in found.rejected] == ["runtime vllm", "runtime sglang"]


def test_what_was_named_stays_though_it_does_not_run() -> None:
    found = engine_for("vllm", "modelopt-int4-awq", H100)
    assert (found.name, found.ok) == ("vllm", False)
    assert options_for(found, "modelopt-int4-awq", H100, None) == ([], [])


def test_a_format_that_the_matrix_does_not_know_is_said_to_be_unknown() -> None:
    found = engine_for("auto", "mxfp4", A100)
    assert found.ok
    assert "does not know mxfp4" in found.reason


@pytest.mark.parametrize("asked", ["auto", "cpu"])
def test_without_a_gpu_it_is_the_cpu_engine(asked: str) -> None:
    assert engine_for(asked, "bf16", "cpu").name == "cpu"


def test_auto_prefers_what_loses_nothing_then_more_bits() -> None:
    engine = engine_for("auto", "bf16", H100)
    options, _ = options_for(engine, "bf16", H100, None)
    assert [each.name for each in options] == ["bf16", "fp8-dynamic", "w4a16"]
    bits = [each.bits for each in options[1:]]
    assert bits == sorted(bits, reverse=True)


def test_auto_takes_only_what_is_computed_natively_and_names_the_rest() -> None:
    engine = engine_for("auto", "bf16", A100)
    options, others = options_for(engine, "bf16", A100, None)
    for each in options[1:]:
        assert judge(each.name, "vllm", "", A100).how == "yes"
    assert not {each.name for each in options} & {each.name for each in others}


def test_recipes_that_were_named_come_first() -> None:
    engine = engine_for("auto", "bf16", H100)
    options, others = options_for(engine, "bf16", H100, [DEFAULTS["w4a16"]])
    assert [each.name for each in options] == ["w4a16", "bf16"]
    assert options[0].bits == 4.125
    assert "fp8-dynamic" in {each.name for each in others}


def test_a_quantized_checkpoint_is_served_as_it_came() -> None:
    engine = engine_for("auto", "fp8-block", H100)
    options, others = options_for(engine, "fp8-block", H100, [DEFAULTS["w4a16"]])
    assert [each.name for each in options] == ["fp8-block"]
    assert others == []
