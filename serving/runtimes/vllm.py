"""vLLM, and what serves with vLLM inside: KServe's Hugging Face server, Triton's vLLM backend."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from penstock.core.serving import Ngram, Serving
from penstock.core.spec import ModelSpec
from serving.runtimes.runtime import CAN_ALL, PORT, Can, Runtime, split
from serving.runtimes.settings import (
    MODEL,
    Entry,
    Option,
    Setting,
    adapters,
    compact,
    inside,
    option,
)
from serving.runtimes.signals import Answered, Series, Signal

SERIES: dict[Signal, Series] = {
    "queued": Series("vllm:num_requests_waiting"),
    "running": Series("vllm:num_requests_running"),
    "kv_used": Series("vllm:kv_cache_usage_perc"),
    "requests": Series("vllm:request_success_total"),
    "prompt_tokens": Series("vllm:prompt_tokens_total"),
    "answer_tokens": Series("vllm:generation_tokens_total"),
    "ttft": Series("vllm:time_to_first_token_seconds"),
    "tpot": Series("vllm:request_time_per_output_token_seconds"),
    "queue_time": Series("vllm:request_queue_time_seconds"),
}

OFFLINE = {"HF_HUB_OFFLINE": "1", "HOME": "/tmp"}  # noqa: S108 - of a container of its own
"""Nothing is fetched once the pod runs: what is served is what was verified."""

_QUIET = {**OFFLINE, "VLLM_NO_USAGE_STATS": "1", "VLLM_WORKER_MULTIPROC_METHOD": "spawn"}
_GRAMMARS = "JSON schema, regular expression, choice, grammar"


def engine_args(spec: ModelSpec) -> Iterator[tuple[str, str, Any]]:
    """Yield what vLLM's engine is told: field of model.yaml, name of the argument, value."""
    wish, (tensor, stages) = spec.serving, split(spec)
    if spec.hardware.accelerator != "cpu":
        yield "hardware.count", "tensor_parallel_size", tensor
    if stages > 1:
        yield "serving.pipeline_parallel", "pipeline_parallel_size", stages
    yield from _plain(wish)
    if wish.speculative is not None:
        yield "serving.speculative", "speculative_config", speculative(wish)
    if wish.max_answer_tokens is not None:
        limit = {"max_new_tokens": wish.max_answer_tokens}
        yield "serving.max_answer_tokens", "override_generation_config", limit
    if wish.lora is not None:
        yield "serving.lora", "enable_lora", True
        yield "serving.lora.max_rank", "max_lora_rank", _rank(wish.lora.max_rank)
        yield "serving.lora", "max_loras", len(wish.lora.adapters)


_PLAIN = {
    "context": "max_model_len",
    "concurrency": "max_num_seqs",
    "memory_share": "gpu_memory_utilization",
    "chunked_prefill": "enable_chunked_prefill",
    "prefix_caching": "enable_prefix_caching",
}


def _plain(wish: Serving) -> Iterator[tuple[str, str, Any]]:
    for field, name in _PLAIN.items():
        if (value := getattr(wish, field)) is not None:
            yield f"serving.{field}", name, value
    if wish.kv_cache != "auto":
        yield "serving.kv_cache", "kv_cache_dtype", wish.kv_cache


def speculative(wish: Serving) -> dict[str, Any]:
    """Return vLLM's `speculative_config`."""
    guess = wish.speculative
    if guess is None:
        return {}
    body: dict[str, Any] = {"num_speculative_tokens": guess.tokens}
    if isinstance(guess, Ngram):
        return {**body, "method": "ngram"}
    methods = {"draft": "draft_model", "eagle": "eagle3" if _third(guess) else "eagle"}
    return {**body, "method": methods[guess.kind], "model": inside(guess.model)}


def _third(guess: object) -> bool:
    return getattr(guess, "version", 1) == 3


def _rank(wanted: int) -> int:
    """Return the smallest rank that vLLM is built for and that holds the wanted one."""
    return next(rank for rank in (8, 16, 32, 64, 128, 256, 320, 512) if rank >= wanted)


def command_line(spec: ModelSpec, negative: str) -> Iterator[Setting]:
    """Yield options of `vllm serve`, but for the name; `negative` begins a switch's opposite."""
    for field, name, value in engine_args(spec):
        spelling = f"--{name.replace('_', '-')}"
        if value is False:
            yield Option(field, spelling.replace("--enable-", negative))
        elif value is True:
            yield Option(field, spelling)
        else:
            text = compact(value) if isinstance(value, dict) else str(value)
            yield Option(field, spelling, (text,))
    wish = spec.serving
    if wish.lora is not None:
        yield Option("serving.lora", "--lora-modules", adapters(wish.lora.adapters))
    if wish.chat_template is not None:
        yield Option("serving.chat_template", "--chat-template", (inside(wish.chat_template),))
    if wish.tool_parser is not None:
        yield Option("serving.tool_parser", "--enable-auto-tool-choice")
        yield Option("serving.tool_parser", "--tool-call-parser", (wish.tool_parser,))
    yield from option("serving.reasoning_parser", "--reasoning-parser", wish.reasoning_parser)


def _vllm(spec: ModelSpec) -> Iterator[Setting]:
    yield from command_line(spec, "--disable-")
    yield from option("serving.max_queued", "--max-num-queued-reqs", spec.serving.max_queued)


def _huggingface(spec: ModelSpec) -> Iterator[Setting]:
    if spec.hardware.accelerator == "cpu":  # then without vLLM
        yield from option("serving.context", "--max_model_len", spec.serving.context)
        return
    # how many devices: it takes all it sees, whatever it is told
    for each in command_line(spec, "--no-enable-"):
        if each.field != "hardware.count":
            yield each


def _triton(spec: ModelSpec) -> Iterator[Setting]:
    yield Entry("", "model", MODEL)
    yield Entry("", "disable_log_stats", False)  # both this and a parameter of Triton's: see below
    for field, name, value in engine_args(spec):
        yield Entry(field, name, value)
    wish = spec.serving
    if wish.chat_template is not None:
        yield Option("serving.chat_template", "--chat-template", (inside(wish.chat_template),))
    yield from option("serving.tool_parser", "--tool-call-parser", wish.tool_parser)


VLLM = Runtime(
    key="vllm",
    text="vLLM",
    version="0.33.0",
    image="vllm/vllm-openai:v0.33.0",
    source="vLLM 0.33.0 of PyPI, read 2026-11-28: vllm/entrypoints/common/cli_args.py, "
    "vllm/engine/arg_utils.py, vllm/config/speculative.py; the image's tag is the release's "
    "name with a v, as for 0.30.0, which was seen; this one was not pulled",
    matrix={"gpu": ("vllm", "0.33.0"), "cpu": ("vllm", "0.33.0")},
    known="vllm-0.33.0",
    settings=_vllm,
    can=frozenset(CAN_ALL),
    can_on_cpu=frozenset(
        {"context", "concurrency", "max_queued", "max_answer_tokens", "chat_template"}
    ),
    command=("vllm", "serve", MODEL),
    args=("--host=0.0.0.0", f"--port={PORT}"),
    ready="/v1/models",
    series=SERIES,
    series_source="vLLM 0.33.0, vllm/v1/metrics/loggers.py and "
    "vllm/entrypoints/serve/instrumentator/metrics.py, read 2026-11-28",
    answered=Answered(
        (Series("http_requests_total", {"handler": "/v1/"}),),
        (Series("http_requests_total", {"handler": "/v1/", "status": "5"}),),
    ),
    env=_QUIET,
    name_option="--served-model-name",
    tensor_option="--tensor-parallel-size",
    server_type="vllmserver",  # without devices KServe takes vllm/vllm-openai-cpu
    model_format="vLLM",
    structured=_GRAMMARS,
    over_nodes=(  # docs/serving/parallelism_scaling.md, Running vLLM with MultiProcessing
        ("--distributed-executor-backend", "mp"),
        ("--nnodes", "{nodes}"),
        ("--node-rank", "$(LWS_WORKER_INDEX)"),
        ("--master-addr", "$(LWS_LEADER_ADDRESS)"),
    ),
    worker_args=("--headless",),
    multi_node="LeaderWorkerSet: a pipeline stage per node",
)

_WITHOUT_A_QUEUE: frozenset[Can] = frozenset(CAN_ALL) - {"max_queued"}

HUGGINGFACE = Runtime(
    key="huggingface",
    text="KServe's Hugging Face server: vLLM 0.24.0 beside devices, transformers on a CPU",
    version="0.20.0",
    image="kserve/huggingfaceserver:v0.20.0",
    source="KServe v0.20.0 (2026-08-05), read 2026-11-28: python/huggingfaceserver, "
    "python/huggingface_server.Dockerfile, pkg/controller/v1beta1/inferenceservice/utils/utils.go",
    matrix={"gpu": ("vllm", "0.24.0"), "cpu": ("huggingface", "5.17.0")},
    known="huggingface-0.20.0 vllm-0.24.0",
    settings=_huggingface,
    can=_WITHOUT_A_QUEUE - {"pipeline_parallel"},
    can_on_cpu=frozenset({"context"}),
    command=("python3", "-m", "huggingfaceserver"),
    args=(f"--model_dir={MODEL}", f"--http_port={PORT}"),
    ready="/v2/health/ready",
    alive="/v2/health/live",
    series=SERIES,
    series_source="vLLM 0.24.0, vllm/v1/metrics/loggers.py; KServe v0.20.0, "
    "python/kserve/kserve/metrics.py, read 2026-11-28",
    # kserve/protocol/rest/openai/endpoints.py: OpenAI's routes are below /openai otherwise, where
    # nobody asks who is led here from another engine
    env={**_QUIET, "KSERVE_OPENAI_ROUTE_PREFIX": ""},
    name_option="--model_name",
    server_type="huggingfaceserver",  # KServe adds -gpu to the tag where devices are asked for
    structured=_GRAMMARS,
    multi_node="KServe's runtime kserve-huggingfaceserver-multinode (Ray); not written by Penstock",
    note="ignores options it does not know, and splits the model over every device it sees; on a "
    "CPU it shows no signal; its /v1/models is KServe's, not OpenAI's",
)

_REPOSITORY = "/tmp/repository"  # noqa: S108 - of a container of its own
_TRITON = (
    f'mkdir -p "{_REPOSITORY}/$PENSTOCK_NAME/1" && '
    f'printf %s "$PENSTOCK_CONFIG" > "{_REPOSITORY}/$PENSTOCK_NAME/1/model.json" && '
    """printf 'backend: "vllm"\\ninstance_group [{kind: KIND_MODEL}]\\n"""
    """parameters {key: "REPORT_CUSTOM_METRICS" value: {string_value: "true"} }\\n' """
    f'> "{_REPOSITORY}/$PENSTOCK_NAME/config.pbtxt" && cd /opt/tritonserver/python/openai && '
    'exec python3 openai_frontend/main.py "$@"'
)
_TRITON_CAN: frozenset[Can] = _WITHOUT_A_QUEUE - {"reasoning_parser", "lora", "max_answer_tokens"}

TRITON = Runtime(
    key="triton",
    text="Triton with its vLLM backend (vLLM 0.24.0) and its OpenAI front end",
    version="26.07",
    image="nvcr.io/nvidia/tritonserver:26.07-vllm-python-py3",
    source="Triton v2.71.0 (2026-07-24), read 2026-11-28: docs/introduction/compatibility.md, "
    "python/openai/README.md, python/openai/openai_frontend/main.py; vllm_backend README (metrics "
    "are off unless REPORT_CUSTOM_METRICS is set)",
    matrix={"gpu": ("triton", "0.24.0")},
    known="triton-26.07",
    settings=_triton,
    can=_TRITON_CAN,
    command=("/bin/sh", "-c", _TRITON, "triton"),
    args=(
        *(f"--model-repository={_REPOSITORY}", f"--tokenizer={MODEL}", "--host=0.0.0.0"),
        *(f"--openai-port={PORT}", "--default-max-tokens=1024"),
    ),
    ready="/health/ready",
    alive="/health/ready",
    series={
        **{name: SERIES[name] for name in ("queued", "running", "prompt_tokens", "answer_tokens")},
        "kv_used": Series("vllm:gpu_cache_usage_perc"),
        "requests": Series("nv_inference_request_success"),
        "ttft": SERIES["ttft"],
        "tpot": Series("vllm:time_per_output_token_seconds"),
        "queue_time": SERIES["queue_time"],
    },
    series_source="vllm_backend src/utils/metrics.py @1e66a22; Triton v2.71.0 "
    "docs/user_guide/metrics.md; read 2026-11-28",
    answered=Answered(
        (Series("nv_inference_request_success"), Series("nv_inference_request_failure")),
        tuple(
            Series("nv_inference_request_failure", {"reason": reason})
            for reason in ("BACKEND", "REJECTED", "OTHER")  # and CANCELED: the client left
        ),
    ),
    env=_QUIET,
    start_s=360.0,
    model_format="triton",
    structured=_GRAMMARS,
    note="an answer has 1024 tokens unless the request says otherwise (the front end's own default "
    "is 16); its tool parsers are llama3 and mistral",
)
