from typing import Any

import pytest

from penstock.core.errors import ConfigurationError
from penstock.core.matrix import judge
from penstock.core.recipes import DEFAULTS
from penstock.core.spec import ModelSpec
from serving.runtimes.launch import launch
from serving.sizing.resolve import by_default, engine_for, options_for, resolve, unknown
from tests.unit.serving.sizing.published import shape

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


def _spec(gpu: str = L40S, **more: Any) -> ModelSpec:
    hardware = {"accelerator": gpu, **more.pop("hardware", {})}
    body = {"name": "chat", "source": "hf://org/chat", "hardware": hardware, **more}
    return ModelSpec.model_validate(body)


LLAMA8 = shape("meta-llama/Meta-Llama-3.1-8B")
QWEN32 = shape("Qwen/Qwen3-32B")


def test_a_spec_that_is_resolved_leaves_nothing_open_and_its_engine_is_told() -> None:
    found = resolve(_spec("nvidia-l4"), LLAMA8)
    assert (found.spec.runtime, found.spec.precision) == ("vllm", ())
    assert not found.spec.undecided
    assert found.spec.serving.context == found.plan.trial.context < 131_072
    assert f"--max-model-len={found.plan.trial.context}" in launch(found.spec).args
    assert found.told == "vllm on 1 x nvidia-l4, bf16, tp 1"
    assert "--max-num-seqs=256" in launch(found.spec).args


def test_what_does_not_fit_as_it_came_is_made_smaller() -> None:
    found = resolve(_spec(), QWEN32)
    assert found.spec.precision == (DEFAULTS["fp8-dynamic"],)
    assert any(each.what == "bf16, tp 1" for each in found.rejected)
    assert any("evaluation refuses fp8-dynamic" in each for each in found.warnings)


def test_what_was_named_stays() -> None:
    named = _spec(runtime="sglang", precision=["int4", "fp8"], serving={"context": 4096})
    found = resolve(named, LLAMA8).spec
    assert (found.runtime, found.precision) == ("sglang", named.precision)
    assert found.serving.context == 4096


def test_a_runtime_is_told_only_what_it_can_be() -> None:
    found = resolve(_spec(runtime="tgi"), LLAMA8).spec
    assert (found.serving.context, found.serving.concurrency) == (131_072, None)
    assert launch(found).runtime.key == "tgi"


def test_a_runtime_is_judged_by_the_version_that_is_pinned() -> None:
    found = engine_for("huggingface", "bf16", H100)
    assert found.row == ("vllm", "0.24.0")


def test_recipes_that_do_not_run_there_are_told() -> None:
    found = resolve(_spec(A100, precision=["nvfp4", "int4"]), LLAMA8)
    told = {each.what: each.why for each in found.rejected}
    runs = judge("nvfp4", "vllm", "0.33.0", A100)
    assert runs.ok or runs.reason in told["precision nvfp4"]
    assert found.plan.trial.option.name in ("nvfp4" if runs.ok else "w4a16",)


@pytest.mark.parametrize(
    ("spec", "says", "change"),
    [
        (_spec(runtime="cpu"), "runtime cpu cannot use nvidia-l40s", "set runtime: auto, or"),
        (
            _spec("nvidia-h100-80gb", hardware={"mig": "1g.10gb"}, precision="bf16"),
            "bf16, tp 1 on 1 x nvidia-h100-80gb (1g.10gb)",
            "hardware.mig: 3g.40gb",
        ),
    ],
)
def test_what_cannot_be_is_refused_with_the_smallest_change(
    spec: ModelSpec, says: str, change: str
) -> None:
    with pytest.raises(ConfigurationError) as refused:
        resolve(spec, LLAMA8)
    assert says in str(refused.value)
    assert change in refused.value.hint
    assert "hardware.count" not in refused.value.hint


def test_a_format_that_no_engine_runs_is_refused() -> None:
    quantized = shape("nvidia/Llama-3.1-70B-Instruct-FP8")
    with pytest.raises(ConfigurationError, match="does not run this checkpoint") as refused:
        resolve(_spec("nvidia-a100-80gb", runtime="tensorrt-llm"), quantized)
    assert refused.value.hint.startswith(("set runtime: ", "no engine runs modelopt-fp8"))


def test_without_headers_the_default_serves_it_as_it_came() -> None:
    found = by_default(_spec())
    assert (found.runtime, found.precision) == ("vllm", ())
    named = by_default(_spec(precision="int4", runtime="sglang"))
    assert (named.runtime, named.precision) == ("sglang", (DEFAULTS["w4a16"],))


def test_other_makers_devices_are_not_known() -> None:
    assert "amd-mi300x-192gb" in unknown(_spec("amd-mi300x-192gb"))
    assert unknown(_spec()) == ""
