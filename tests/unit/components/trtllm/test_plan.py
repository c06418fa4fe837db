from __future__ import annotations

import itertools
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from components.trtllm import documented
from components.trtllm.model import (
    SCHEME_OF,
    Build,
    RuntimeImage,
    Shape,
    Strategy,
    accelerator,
    facts_of,
)
from components.trtllm.plan import SERVE_CONFIG, Plan, plan
from penstock.core.errors import RecipeImpossible
from penstock.core.recipes import (
    DEFAULTS,
    Calibration,
    ModelOptFp8,
    ModelOptInt4Awq,
    ModelOptNvfp4,
    Recipe,
    parse_recipe,
)
from tests.unit.components.trtllm.cases import CONFIG, FACTS, PLACES, build

_B200 = accelerator("B200")
_INT4 = ModelOptInt4Awq()
_SERVES = RuntimeImage.parse("nvcr.io/nvidia/tensorrt-llm/release:1.3.0rc5")


def _options(argv: tuple[str, ...]) -> set[str]:
    return {word for word in argv if word.startswith("--")}


def _planned(wanted: Build) -> Plan | None:
    """Return the plan, or None for a refusal; a refusal names the nearest that is possible."""
    refused = None
    try:
        return plan(wanted, PLACES)
    except RecipeImpossible as problem:
        refused = problem
    assert refused.hint
    return None


def test_an_engine_is_converted_then_built_then_served() -> None:
    made = plan(build(recipe=ModelOptFp8(kv_cache="fp8"), tp=2), PLACES)
    convert, make = made.stages
    assert convert.argv == (
        "/usr/bin/python3",
        "/app/tensorrt_llm/examples/quantization/quantize.py",
        *("--model_dir", "/in", "--output_dir", "/build/trtllm_checkpoint"),
        *("--dtype", "bfloat16", "--qformat", "fp8"),
        *("--calib_dataset", "cnn_dailymail", "--calib_size", "128", "--kv_cache_dtype", "fp8"),
        *("--export_format", "tensorrt_llm", "--tp_size", "2", "--pp_size", "1"),
    )
    assert make.argv == (
        *("trtllm-build", "--checkpoint_dir", "/build/trtllm_checkpoint"),
        *("--output_dir", "/build/engine", "--max_batch_size", "64", "--max_input_len", "3072"),
        *("--max_seq_len", "4096", "--max_num_tokens", "8192", "--max_beam_width", "1"),
        *("--kv_cache_type", "paged", "--workers", "2", "--gemm_plugin", "auto"),
        *("--use_paged_context_fmha", "enable", "--use_fp8_context_fmha", "enable"),
    )
    assert made.serve == (
        *("trtllm-serve", "/mnt/engine/engine", "--host", "0.0.0.0", "--port", "8000"),
        *("--backend", "tensorrt", "--tokenizer", "/mnt/engine/tokenizer"),
        *("--tp_size", "2", "--pp_size", "1", "--max_batch_size", "64"),
        *("--max_num_tokens", "8192", "--max_seq_len", "4096", "--max_beam_width", "1"),
        *("--extra_llm_api_options", "/mnt/engine/extra_llm_args.yaml"),
    )
    assert [stage.kept for stage in made.stages] == [False, True]


def test_a_checkpoint_is_exported_then_served_by_the_pytorch_backend() -> None:
    recipe = ModelOptNvfp4(kv_cache="fp8", calibration=Calibration(samples=32))
    made = plan(build(strategy="checkpoint", recipe=recipe, image=_SERVES, gpu=_B200), PLACES)
    (export,) = made.stages
    assert export.argv[-2:] == ("--export_format", "hf")
    assert ("--calib_size", "32") in itertools.pairwise(export.argv)
    assert "--awq_block_size" not in export.argv
    assert made.serve[:2] == ("trtllm-serve", "/mnt/engine/checkpoint")
    assert "--backend" not in made.serve  # the default, and deprecated from 1.3 on
    assert yaml.safe_load(made.files[SERVE_CONFIG]) == {
        "enable_chunked_prefill": False,
        "enable_iter_perf_stats": True,
        "kv_cache_config": {
            "dtype": "fp8",
            "enable_block_reuse": True,
            "free_gpu_memory_fraction": 0.9,
        },
        "max_input_len": 3072,
        "return_perf_metrics": True,
    }


@pytest.mark.parametrize("quantized", [None, "fp8"])
def test_a_checkpoint_that_stays_as_it_is_needs_no_command(quantized: Any) -> None:
    model = facts_of(CONFIG, 16_000_000_000, quantized and {"quantization": {"quant_algo": "FP8"}})
    made = plan(build(strategy="checkpoint", model=model, recipe=None), PLACES)
    assert made.stages == ()
    assert made.serve[1] == "/mnt/models"


def _with(name: str, more: dict[str, Any]) -> Recipe:
    fields = type(DEFAULTS[name]).model_fields
    return parse_recipe({"scheme": name, **{k: v for k, v in more.items() if k in fields}})


@given(
    strategy=st.sampled_from(["checkpoint", "engine"]),
    name=st.sampled_from([None, *SCHEME_OF]),
    more=st.sampled_from([{}, {"kv_cache": "fp8"}, {"group_size": 64}]),
    gpu=st.sampled_from(["nvidia-a100-80gb", "L40S", "H100", "B200"]),
    tp=st.sampled_from([1, 2, 4, 8]),
    tokens=st.sampled_from([1024, 8192]),
)
def test_every_name_that_is_written_is_documented(
    strategy: Strategy, name: str | None, more: dict[str, Any], gpu: str, tp: int, tokens: int
) -> None:
    wanted = build(
        strategy=strategy,
        recipe=None if name is None else _with(name, more),
        gpu=accelerator(gpu),
        tp=tp,
        max_num_tokens=tokens,
    )
    made = _planned(wanted)
    if made is None:
        return
    programs = {"/usr/bin/python3": documented.QUANTIZE, "trtllm-build": documented.BUILD}
    for stage in made.stages:
        assert _options(stage.argv) <= programs[stage.argv[0]].names
        for option, value in itertools.pairwise(stage.argv):
            assert option != "--qformat" or value in documented.QFORMATS
    assert _options(made.serve) <= documented.SERVE.names
    _check_config(made, strategy)


def _check_config(made: Plan, strategy: Strategy) -> None:
    keys = documented.TRT_ARGS if strategy == "engine" else documented.TORCH_ARGS
    args = yaml.safe_load(made.files[SERVE_CONFIG])
    assert args.keys() <= keys.names
    assert args["kv_cache_config"].keys() <= documented.KV_CACHE.names
    # the TensorRT backend refuses a dtype, and takes the one in the engine
    assert ("dtype" in args["kv_cache_config"]) == (strategy == "checkpoint")
    # the file replaces what the command line says of the cache: it must not say it in two places
    assert "--kv_cache_free_gpu_memory_fraction" not in made.serve


def test_prompts_longer_than_a_step_are_read_in_chunks() -> None:
    for strategy in ("checkpoint", "engine"):
        made = plan(build(strategy=strategy, max_num_tokens=1024), PLACES)
        assert yaml.safe_load(made.files[SERVE_CONFIG])["enable_chunked_prefill"] is True


def test_a_pod_asks_for_a_gpu_per_rank_and_for_shared_memory() -> None:
    asked = plan(build(tp=2, pp=2), PLACES).resources
    assert asked.gpus == 4
    assert asked.memory_bytes > 2 * FACTS.weights_bytes + asked.shm_bytes
    pod = asked.kubernetes()
    assert pod["requests"]["nvidia.com/gpu"] == pod["limits"]["nvidia.com/gpu"] == "4"
    assert pod["requests"]["memory"] == pod["limits"]["memory"]


_TWO_KV = facts_of({**CONFIG, "num_key_value_heads": 2}, 16_000_000_000)
_ODD = facts_of({**CONFIG, "intermediate_size": 14400}, 16_000_000_000)
_QUANTIZED = facts_of(CONFIG, 9_000_000_000, {"quantization": {"quant_algo": "FP8"}})


@pytest.mark.parametrize(
    ("changes", "said", "nearest"),
    [
        ({"image": _SERVES}, "trtllm-build was removed", "--strategy checkpoint with this image"),
        (
            {"image": RuntimeImage.parse("nvcr.io/nvidia/tensorrt-llm/release:0.20.0")},
            "not known here",
            "release:1.2.1",
        ),
        ({"max_input_len": 5000, "max_seq_len": 4096}, "no room for an answer", "--max-input 4095"),
        ({"max_seq_len": 9000}, "8192 positions", "--max-seq 8192"),
        ({"max_batch_size": 9000}, "one token of each", "--max-num-tokens 9000"),
        ({"max_beam_width": 0}, "max_beam_width is 0", "max_beam_width 1"),
        ({"tp": 3}, "tp 3 divides 32 attention heads", "--tp 2"),
        ({"tp": 5, "model": _TWO_KV}, "2 key-value", "--tp 4"),
        ({"pp": 33}, "more than 32 layers", "--pp 32"),
        ({"tp": 8, "pp": 2}, "16 GPUs; one node has 8", "--tp 8 --pp 1"),
        ({"gpu": accelerator("nvidia-a100-80gb")}, "needs SM 89", "--precision modelopt-int4-awq"),
        ({"recipe": ModelOptNvfp4()}, "needs SM 100", "--precision modelopt-fp8"),
        (
            {"recipe": _INT4, "gpu": _B200},
            "SM 80 to 90",
            "--precision modelopt-fp8",
        ),
        ({"recipe": _INT4, "model": _ODD}, "groups of 128", "group_size 64"),
        ({"recipe": _INT4, "model": _ODD, "tp": 2}, "over 2 GPUs", "--precision modelopt-fp8"),
        ({"model": _QUANTIZED}, "fp8 already", "--strategy checkpoint"),
        (
            {"model": _QUANTIZED, "strategy": "checkpoint", "recipe": _INT4},
            "cannot become int4_awq",
            "--precision bf16",
        ),
    ],
)
def test_what_is_impossible_names_the_reason_and_the_nearest(
    changes: dict[str, Any], said: str, nearest: str
) -> None:
    with pytest.raises(RecipeImpossible) as raised:
        plan(build(**changes), PLACES)
    assert said in str(raised.value)
    assert nearest in raised.value.hint


def test_weights_that_do_not_fit_name_how_many_gpus_do() -> None:
    large = facts_of(CONFIG, 140_000_000_000)
    with pytest.raises(RecipeImpossible, match=r"140\.0 GB") as raised:
        plan(build(model=large), PLACES)
    assert raised.value.hint == "nearest: --tp 2"
    assert plan(build(model=large, tp=2), PLACES).resources.gpus == 2


def test_key_value_heads_may_be_duplicated_evenly() -> None:
    assert plan(build(tp=8, model=_TWO_KV), PLACES).resources.gpus == 8


@given(st.builds(Shape, **{n: st.integers(-1, 70) for n in Shape.__dataclass_fields__}))
def test_any_shape_is_planned_or_refused_with_a_way_out(shape: Shape) -> None:
    made = _planned(build(**{n: getattr(shape, n) for n in Shape.__dataclass_fields__}))
    if made is not None:
        assert made.resources.gpus == shape.tp * shape.pp <= 8
        assert FACTS.heads % shape.tp == 0


@pytest.mark.parametrize("text", ["release", "release:latest", "release:1.2", "release:main", ""])
def test_an_image_without_an_exact_version_is_refused(text: str) -> None:
    with pytest.raises(RecipeImpossible, match="exact TensorRT-LLM version"):
        RuntimeImage.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        documented.ENGINE_IMAGE,
        f"{documented.ENGINE_IMAGE}@sha256:{'a' * 64}",
        "127.0.0.1:5000/trtllm:1.3.0rc5.post1",
    ],
)
def test_an_image_is_read_as_it_was_written(text: str) -> None:
    image = RuntimeImage.parse(text)
    assert str(image) == text
    assert image.line in documented.KNOWN_LINES
    assert image.identity == (image.digest or text)


def test_gpus_have_short_names_where_those_are_clear() -> None:
    assert accelerator("h200").sm == 90
    for name in ("A100", "cpu", "V100"):
        with pytest.raises(RecipeImpossible, match="no GPU"):
            accelerator(name)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({}, "num_attention_heads"),
        ({**CONFIG, "hidden_size": "wide"}, "wide"),
        ({**CONFIG, "quantization_config": {"quant_method": "compressed-tensors"}}, "compressed"),
        (
            {**CONFIG, "quantization_config": {"quant_method": "modelopt", "quant_algo": "W8A16"}},
            "W8A16",
        ),
    ],
)
def test_a_model_that_cannot_be_judged_is_refused(config: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeImpossible, match=said):
        facts_of(config, 1)


def test_facts_are_read_from_either_transformers_and_from_modelopt() -> None:
    newer = {k: v for k, v in CONFIG.items() if k != "torch_dtype"} | {"dtype": "float16"}
    assert facts_of(newer, 1).dtype == "float16"
    inside = {**CONFIG, "quantization_config": {"quant_method": "modelopt", "quant_algo": "NVFP4"}}
    assert facts_of(inside, 1).quantized == "nvfp4"
    single = {k: v for k, v in CONFIG.items() if k != "num_key_value_heads"}
    assert facts_of(single, 1).kv_heads == 32
