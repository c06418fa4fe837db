"""What engines are told, and what is refused before they are."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.errors import ConfigurationError
from penstock.core.spec import Rollout
from serving.runtimes.catalog import RUNTIMES, runtime_of
from serving.runtimes.known import known
from serving.runtimes.launch import able, launch, patient, ready_budget_s, start_budget_s
from serving.runtimes.runtime import CAN_ALL
from tests.unit.serving.runtimes.wishes import GPUS, SAID, on, spec, wishes

SERVED = [each for each in RUNTIMES.values() if not each.refused]
KEYS = [each.key for each in SERVED]
FIELD = {can: "serving.speculative" if ":" in can else f"serving.{can}" for can in CAN_ALL}


@pytest.mark.parametrize("key", KEYS)
def test_every_option_that_is_written_is_one_that_the_engine_knows(key: str) -> None:
    runtime = RUNTIMES[key]
    options = known(runtime.known)
    for name, wish in wishes(runtime).items():
        words = [*runtime.args, *launch(wish).args, *runtime.worker_args]
        strange = [word for word in words if word[:1] == "-" and not options.option(word)]
        assert strange == [], name


@pytest.mark.parametrize(
    ("key", "can"),
    [
        (key, can)
        for key in KEYS
        for can in CAN_ALL
        # without devices there is nothing to split a model over
        if key != "cpu" or not can.endswith("parallel")
    ],
)
def test_what_an_engine_is_asked_it_is_told_or_it_is_refused(key: str, can: Any) -> None:
    runtime = RUNTIMES[key]
    wish = on(runtime, SAID[can])
    if can in runtime.can:
        plain = launch(on(runtime))
        told = launch(wish)
        same = can == "tensor_parallel"  # all devices, which is what the count says anyway
        assert same or (told.args, told.env) != (plain.args, plain.env)
        return
    with pytest.raises(ConfigurationError, match=f"runtime {wish.runtime} cannot be told") as no:
        launch(wish)
    assert FIELD[can] in str(no.value) or "hardware.count" in str(no.value)
    assert no.value.hint


def test_whoever_cannot_is_told_who_can() -> None:
    with pytest.raises(ConfigurationError) as refused:
        launch(spec(runtime="tgi", hardware=GPUS, serving=SAID["lora"]))
    assert refused.value.hint == "runtimes that can do all of it: vllm, sglang, huggingface"
    assert able(["max_answer_tokens", "max_queued"], "gpu") == ["vllm"]
    assert able(["context"], "cpu") == ["vllm", "huggingface"]


def test_a_model_is_split_over_all_devices_unless_told() -> None:
    def of(key: str, **serving: Any) -> str:
        return " ".join(launch(spec(runtime=key, hardware=GPUS, serving=serving)).args)

    assert "--tensor-parallel-size=4" in of("vllm")
    assert "--tensor-parallel-size=2 --pipeline-parallel-size=2" in of("vllm", pipeline_parallel=2)
    assert "--tp-size=4" in of("sglang")
    assert "--tp_size=1 --pp_size=4" in of("tensorrt-llm", pipeline_parallel=4)


@pytest.mark.parametrize("key", ["vllm", "sglang"])
def test_over_nodes_a_stage_is_a_node_and_nobody_says_it_twice(key: str) -> None:
    two = {**GPUS, "nodes": 2}
    words = launch(spec(runtime=key, hardware=two)).args
    assert {"--nnodes=2", "--node-rank=$(LWS_WORKER_INDEX)"} <= set(words)
    assert [word for word in words if word in ("--pipeline-parallel-size=2", "--pp-size=2")]
    assert "nnodes" not in " ".join(launch(spec(runtime=key, hardware=GPUS)).args)
    with pytest.raises(ConfigurationError, match=r"--nnodes says what hardware\.nodes says"):
        launch(spec(runtime=key, hardware=two, runtime_args=["--nnodes=2"]))


@pytest.mark.parametrize(("tensor", "stages"), [(2, 1), (3, 1), (4, 2), (1, 3)])
def test_devices_that_do_not_add_up_are_refused(tensor: int, stages: int) -> None:
    serving = {"tensor_parallel": tensor, "pipeline_parallel": stages}
    with pytest.raises(ConfigurationError, match="and hardware") as refused:
        launch(spec(runtime="vllm", hardware=GPUS, serving=serving))
    assert str(tensor * stages) in refused.value.hint


@pytest.mark.parametrize(
    ("key", "args", "said", "hint"),
    [
        ("vllm", ["--max-modl-len=9"], "has no option --max-modl-len; did you mean --max-mod", ""),
        ("vllm", ["--max_modl_len=9"], "did you mean --max-model-len", ""),
        ("vllm", ["--tensor-parallel-size=2"], "says what hardware.count says", "hardware.count"),
        ("vllm", ["-tp", "2"], "-tp says what hardware.count says", ""),
        ("vllm", ["--max_num_seqs=9"], "says what serving.concurrency says", "serving.concurrency"),
        ("vllm", ["--served-model-name=x"], "says what name says", ""),
        ("vllm", ["--port=1"], "says what Penstock itself says", "probes"),
        ("vllm", ["8192"], "found '8192' where an option should be", "--name=value"),
        ("vllm", ["--x={{.Name}}"], "expands", ""),
        ("sglang", ["--max_running_requests=4"], "did you mean --max-running-requests", ""),
        ("sglang", ["--max-running-requests=4"], "says what serving.concurrency says", ""),
        ("sglang", ["--enable-metrics"], "says what Penstock itself says", ""),
        ("tensorrt-llm", ["--max_batch_size=4"], "says what serving.concurrency says", ""),
        ("tensorrt-llm", ["--max-batch-size=4"], "did you mean --max_batch_size", ""),
        ("tensorrt-llm", ["--config=x"], "says what Penstock itself says", ""),
        ("triton", ["--openai-port=1"], "says what Penstock itself says", ""),
        ("huggingface", ["--max-num-seqs=4"], "says what serving.concurrency says", ""),
        ("huggingface", ["--backnd=vllm"], "did you mean --backend", ""),
        ("tgi", ["--num-shard=1"], "says what hardware.count says", ""),
        ("cpu", ["--fult=live-errors=0.2"], "did you mean --fault", ""),
    ],
)
def test_arguments_of_a_person_that_mean_nothing_or_two_things_are_refused(
    key: str, args: list[str], said: str, hint: str
) -> None:
    told = SAID["concurrency"] if "concurrency" in RUNTIMES[key].can else {}
    with pytest.raises(ConfigurationError, match=said) as refused:
        launch(on(RUNTIMES[key], told, runtime_args=args))
    assert hint in refused.value.hint


@pytest.mark.parametrize(
    ("key", "args"),
    [
        ("vllm", ["--seed", "-1", "--compilation-config.level=3", "--max_num_batched_tokens=4096"]),
        ("sglang", ["--schedule-policy", "fcfs"]),
        ("tensorrt-llm", ["--num_postprocess_workers=2"]),
        ("cpu", ["--fault=live-errors=0.2"]),
    ],
)
def test_what_the_spec_has_no_word_for_is_passed_on_last(key: str, args: list[str]) -> None:
    assert launch(on(RUNTIMES[key], runtime_args=args)).args[-len(args) :] == tuple(args)


@given(st.lists(st.text(max_size=30), max_size=3))
def test_whatever_a_person_writes_is_passed_on_or_refused(args: list[str]) -> None:
    for key in ("vllm", "tensorrt-llm", "cpu"):
        passed_on: list[str] = args
        with suppress(ConfigurationError):
            made = launch(on(RUNTIMES[key], runtime_args=args)).args
            passed_on = list(made[len(made) - len(args) :])
        assert passed_on == args


def test_hardware_that_an_engine_cannot_use_is_refused() -> None:
    for wish in (spec(runtime="cpu", hardware=GPUS), spec(runtime="sglang"), spec(runtime="tgi")):
        with pytest.raises(ConfigurationError, match=f"runtime {wish.runtime} cannot use") as no:
            launch(wish)
        assert "set runtime: auto" in no.value.hint


def test_an_engine_directory_is_served_by_trtllm_serve_only() -> None:
    built = {"strategy": "engine"}
    made = launch(spec(runtime="tensorrt-llm", hardware=GPUS, engine=built))
    assert made.runtime.key == "tensorrt-llm-engine"
    assert "--backend=tensorrt" in made.runtime.args
    with pytest.raises(ConfigurationError, match="no OpenAI requests") as refused:
        runtime_of(spec(runtime="triton", hardware=GPUS, engine=built))
    assert refused.value.hint == "set runtime: tensorrt-llm"
    limits = spec(runtime="tensorrt-llm", hardware=GPUS, engine=built, serving={"context": 9000})
    with pytest.raises(ConfigurationError) as refused:
        launch(limits)
    assert "under `engine`" in refused.value.hint


def test_tensorrt_llm_is_served_by_the_image_it_was_built_in() -> None:
    other = "nvcr.io/nvidia/tensorrt-llm/release:1.2.0"
    for strategy in ("checkpoint", "engine"):
        built = {"strategy": strategy, "image": other}
        assert launch(spec(runtime="tensorrt-llm", hardware=GPUS, engine=built)).image == other
    assert launch(spec(runtime="tensorrt-llm", hardware=GPUS)).image == ""
    assert launch(spec(runtime="vllm", hardware=GPUS, engine={"image": other})).image == ""


def test_what_trtllm_serve_has_no_option_for_goes_into_its_document() -> None:
    serving = {**SAID["kv_cache"], **SAID["prefix_caching"], **SAID["speculative: draft"]}
    made = launch(spec(runtime="tensorrt-llm", hardware=GPUS, serving=serving))
    assert json.loads(made.env["PENSTOCK_CONFIG"]) == {
        "disable_overlap_scheduler": True,
        "enable_iter_perf_stats": True,
        "kv_cache_config": {"dtype": "fp8", "enable_block_reuse": False},
        "max_input_len": 3072,
        "return_perf_metrics": True,
        "speculative_config": {
            "decoding_type": "DraftTarget",
            "max_draft_len": 5,
            "speculative_model_dir": "/mnt/models/draft",
        },
    }
    assert made.env["PENSTOCK_NAME"] == "chat"


def test_larger_models_and_slower_engines_may_take_longer_to_start() -> None:
    vllm, cpu = RUNTIMES["vllm"], RUNTIMES["cpu"]
    assert start_budget_s(vllm, 0) == vllm.start_s > start_budget_s(cpu, 0)
    assert start_budget_s(vllm, 140_000_000_000) == pytest.approx(300 + 2800)


def test_a_version_gets_the_time_that_its_runtime_and_its_size_need() -> None:
    plain, large = spec(), 140_000_000_000
    assert ready_budget_s(plain, 0) == plain.rollout.ready_within_s == 180
    beside = spec(hardware=GPUS)
    budget = ready_budget_s(beside, large)
    # its files are fetched before the engine reads them
    assert budget == pytest.approx(start_budget_s(RUNTIMES["vllm"], large) + 2800 + 600)
    assert patient(beside, large).rollout.ready_within_s == budget


def test_the_time_that_is_named_is_kept() -> None:
    named = spec(hardware=GPUS, rollout={"ready_timeout_s": 42.0})
    assert ready_budget_s(named, 140_000_000_000) == 42
    assert patient(named, 140_000_000_000) == named


def test_a_policy_that_names_none_can_be_stored_and_waits_as_before() -> None:
    text = spec().rollout.model_dump_json()
    assert '"ready_timeout_s":null' in text
    assert Rollout.model_validate_json(text).ready_within_s == 180
    stored = patient(spec(hardware=GPUS), 16_000_000_000).rollout.model_dump_json()
    assert Rollout.model_validate_json(stored).ready_within_s == 600 + 320 + 300 + 320
