"""TensorRT-LLM: trtllm-serve with a checkpoint or with an engine, and Triton with an engine.

1.2.1 knows no option for the name it serves under: it takes the folder's, so a link has it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from penstock.core.serving import Eagle, Ngram, Serving
from penstock.core.spec import ModelSpec
from serving.runtimes.runtime import PORT, Can, Runtime, named_by_a_link, nothing, split
from serving.runtimes.settings import MODEL, Entry, Option, Setting, inside, option
from serving.runtimes.signals import Series, Signal
from serving.runtimes.vllm import OFFLINE

_ENGINE = f"{MODEL}/engine"
_TOKENIZER = f"{MODEL}/tokenizer"
"""As `components.trtllm.build` leaves them."""


def _speculative(wish: Serving) -> Iterator[Setting]:
    guess = wish.speculative
    if guess is None:
        return
    body: dict[str, Any] = {"max_draft_len": guess.tokens}
    if isinstance(guess, Ngram):
        body["decoding_type"] = "NGram"
    else:
        # EAGLE-3 is called Eagle in 1.2, and may be so later on
        body["decoding_type"] = "Eagle" if isinstance(guess, Eagle) else "DraftTarget"
        body["speculative_model_dir"] = inside(guess.model)
    yield Entry("serving.speculative", "speculative_config", body)
    if not isinstance(guess, Eagle):
        yield Entry("serving.speculative", "disable_overlap_scheduler", True)


def _shared(spec: ModelSpec) -> Iterator[Setting]:
    wish, (tensor, stages) = spec.serving, split(spec)
    yield Option("hardware.count", "--tp_size", (str(tensor),))
    if stages > 1:
        yield Option("serving.pipeline_parallel", "--pp_size", (str(stages),))
    share = "--kv_cache_free_gpu_memory_fraction"
    yield from option("serving.memory_share", share, wish.memory_share)
    if wish.chat_template is not None:
        yield Option("serving.chat_template", "--chat_template", (inside(wish.chat_template),))
    yield from option("serving.tool_parser", "--tool_parser", wish.tool_parser)
    yield from option("serving.reasoning_parser", "--reasoning_parser", wish.reasoning_parser)
    yield Entry("", "return_perf_metrics", True)  # without it there are no metrics


def _checkpoint(spec: ModelSpec) -> Iterator[Setting]:
    wish, limits = spec.serving, spec.engine
    yield from _shared(spec)
    context = wish.context or limits.max_seq_len
    yield Option("serving.context", "--max_seq_len", (str(context),))
    # 1024 otherwise, and not an option
    yield Entry("serving.context", "max_input_len", min(limits.max_input_len, context - 1))
    size = str(wish.concurrency or limits.max_batch_size)
    yield Option("serving.concurrency", "--max_batch_size", (size,))
    yield Option("engine.max_num_tokens", "--max_num_tokens", (str(limits.max_num_tokens),))
    if wish.kv_cache == "fp8":
        yield Entry("serving.kv_cache", "kv_cache_config.dtype", "fp8")
    if wish.chunked_prefill is not None:
        yield Entry("serving.chunked_prefill", "enable_chunked_prefill", wish.chunked_prefill)
    if wish.prefix_caching is not None:
        key = "kv_cache_config.enable_block_reuse"
        yield Entry("serving.prefix_caching", key, wish.prefix_caching)
    yield from _speculative(wish)
    yield Entry("", "enable_iter_perf_stats", True)


def _engine(spec: ModelSpec) -> Iterator[Setting]:
    yield from _shared(spec)


SERIES: dict[Signal, Series] = {
    "queued": Series("trtllm_num_requests_waiting"),
    "running": Series("trtllm_num_requests_running"),
    "kv_used": Series("trtllm_kv_cache_utilization"),
    "requests": Series("trtllm_request_success_total"),
    "prompt_tokens": Series("trtllm_prompt_tokens_total"),
    "answer_tokens": Series("trtllm_generation_tokens_total"),
    "ttft": Series("trtllm_time_to_first_token_seconds"),
    "tpot": Series("trtllm_time_per_output_token_seconds"),
    "queue_time": Series("trtllm_request_queue_time_seconds"),
}
_SERIES_SOURCE = (
    "TensorRT-LLM tensorrt_llm/metrics/collector.py @050f80d (1.3 line), read 2026-11-28; the tag "
    "v1.2.1 could not be read: what it does not show yet stays unknown"
)
_SOURCE = (
    "TensorRT-LLM tensorrt_llm/commands/serve.py @00209af and "
    "tests/unittest/api_stability/references/trtllm_serve_cli.yaml @029e223; "
    "docs/source/features/speculative-decoding.md @04c8822; read 2026-11-28"
)
_IMAGE = "nvcr.io/nvidia/tensorrt-llm/release:1.2.1"
_SHARED_CAN: frozenset[Can] = frozenset(
    {
        *("tensor_parallel", "pipeline_parallel", "memory_share"),
        *("chat_template", "tool_parser", "reasoning_parser"),
    }
)
_ARGS = ("--host=0.0.0.0", f"--port={PORT}", "--extra_llm_api_options=/tmp/config.yaml")
_NOTE = "counts for Prometheus at /prometheus/metrics; /metrics is JSON, and empties as it is read"

TRTLLM = Runtime(
    key="tensorrt-llm",
    text="TensorRT-LLM: trtllm-serve with a checkpoint (PyTorch backend)",
    version="1.2.1",
    image=_IMAGE,
    source=_SOURCE,
    matrix={"gpu": ("tensorrt-llm", "1.2.1")},
    known="trtllm-serve-1.2",
    settings=_checkpoint,
    can=_SHARED_CAN
    | {
        *("context", "concurrency", "kv_cache", "chunked_prefill", "prefix_caching"),
        *("speculative: draft", "speculative: ngram", "speculative: eagle 3"),
    },
    command=named_by_a_link("trtllm-serve"),
    args=_ARGS,
    image_from_spec=True,
    metrics="/prometheus/metrics",
    series=SERIES,
    series_source=_SERIES_SOURCE,
    env=OFFLINE,
    structured="JSON schema, regular expression, EBNF, with guided_decoding_backend",
    multi_node="MPI; not written by Penstock yet",
    note=_NOTE,
)

TRTLLM_ENGINE = Runtime(
    key="tensorrt-llm-engine",
    text="TensorRT-LLM: trtllm-serve with an engine that was built for the GPU",
    version="1.2.1",
    image=_IMAGE,
    source=_SOURCE,
    matrix={"gpu": ("tensorrt-llm", "1.2.1")},
    known="trtllm-serve-1.2",
    settings=_engine,
    can=_SHARED_CAN,
    command=named_by_a_link("trtllm-serve", below="/engine"),
    args=(*_ARGS, "--backend=tensorrt", f"--tokenizer={_TOKENIZER}"),
    image_from_spec=True,
    metrics="/prometheus/metrics",
    series=SERIES,
    series_source=_SERIES_SOURCE,
    env=OFFLINE,
    structured="no",
    note=f"{_NOTE}; limits are built in: see `engine` in model.yaml",
    frozen="1.2 is the last line with engines",
)

_REPOSITORY = "/tmp/repository"  # noqa: S108 - of a container of its own
_FILL = "python3 /app/tools/fill_template.py -i"
_SIZE = 'triton_max_batch_size:"$PENSTOCK_BATCH"'
_TRITON = " && ".join(
    (
        f"cp -r /app/all_models/inflight_batcher_llm {_REPOSITORY}",
        f"{_FILL} {_REPOSITORY}/ensemble/config.pbtxt {_SIZE},logits_datatype:TYPE_FP32",
        f"{_FILL} {_REPOSITORY}/preprocessing/config.pbtxt "
        f"tokenizer_dir:{_TOKENIZER},{_SIZE},preprocessing_instance_count:1",
        f"{_FILL} {_REPOSITORY}/tensorrt_llm/config.pbtxt triton_backend:tensorrtllm,{_SIZE},"
        f"decoupled_mode:true,engine_dir:{_ENGINE},max_queue_delay_microseconds:0,"
        "batching_strategy:inflight_fused_batching,max_queue_size:0,"
        "encoder_input_features_data_type:TYPE_FP16,logits_datatype:TYPE_FP32",
        f"{_FILL} {_REPOSITORY}/postprocessing/config.pbtxt "
        f"tokenizer_dir:{_TOKENIZER},{_SIZE},postprocessing_instance_count:1",
        f"{_FILL} {_REPOSITORY}/tensorrt_llm_bls/config.pbtxt "
        f"{_SIZE},decoupled_mode:true,bls_instance_count:1,logits_datatype:TYPE_FP32",
        f'exec tritonserver --model-repository={_REPOSITORY} "$@"',
    )
)


_BATCHER = "nv_trt_llm_request_metrics"
TRITON_ENGINE = Runtime(
    key="triton-engine",
    text="Triton with its TensorRT-LLM backend (1.2.1) and an engine",
    version="26.07",
    image="nvcr.io/nvidia/tritonserver:26.07-trtllm-python-py3",
    source="Triton v2.71.0 (2026-07-24), docs/introduction/compatibility.md; tensorrtllm_backend "
    "docs/README-engine-backend-archive.md @f1ae08c; read 2026-11-28",
    matrix={"gpu": ("tensorrt-llm", "1.2.1")},
    known="",
    settings=nothing,
    can=frozenset({"tensor_parallel"}),
    command=("/bin/sh", "-c", _TRITON, "tritonserver"),
    args=(f"--http-port={PORT}", f"--metrics-port={PORT + 2}"),
    ready="/v2/health/ready",
    alive="/v2/health/live",
    metrics_port=PORT + 2,
    series={
        "queued": Series(_BATCHER, {"request_type": "waiting"}),
        "running": Series(_BATCHER, {"request_type": "scheduled"}),
        "kv_used": Series("nv_trt_llm_kv_cache_block_metrics", {"kv_cache_block_type": "fraction"}),
        "requests": Series("nv_inference_request_success", {"model": "ensemble"}),
        "ttft": Series("nv_inference_first_response_histogram_ms", {"model": "ensemble"}, 0.001),
    },
    series_source="Triton v2.71.0 docs/user_guide/metrics.md, read 2026-11-28; tensorrtllm_backend "
    "README at 0b9d7d5, lines 424-471",
    env={**OFFLINE, "PENSTOCK_BATCH": "64"},
    start_s=360.0,
    model_format="triton",
    note="answers KServe's v2 protocol and /v2/models/ensemble/generate",
    frozen="1.2 is the last line with engines",
    refused="it answers no OpenAI requests, and Penstock judges versions by those: Triton's OpenAI "
    "front end is not in the image. runtime: tensorrt-llm serves the same engine",
)
