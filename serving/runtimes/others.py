"""TGI, which is frozen, and Penstock's own CPU engine."""

from __future__ import annotations

from collections.abc import Iterator

from penstock.core.serving import Ngram
from penstock.core.spec import ModelSpec
from serving.runtimes.runtime import PORT, Runtime, nothing, split
from serving.runtimes.settings import MODEL, Option, Setting, option
from serving.runtimes.signals import Answered, Series
from serving.runtimes.vllm import OFFLINE


def _tgi(spec: ModelSpec) -> Iterator[Setting]:
    wish, (tensor, _) = spec.serving, split(spec)
    yield Option("hardware.count", "--num-shard", (str(tensor),))
    yield from option("serving.context", "--max-total-tokens", wish.context)
    yield from option("serving.memory_share", "--cuda-memory-fraction", wish.memory_share)
    if wish.kv_cache == "fp8":
        yield Option("serving.kv_cache", "--kv-cache-dtype", ("fp8_e4m3fn",))
    if isinstance(wish.speculative, Ngram):
        yield Option("serving.speculative", "--speculate", (str(wish.speculative.tokens),))


TGI = Runtime(
    key="tgi",
    text="Text Generation Inference",
    version="3.3.7",
    image="ghcr.io/huggingface/text-generation-inference:3.3.7",
    source="TGI v3.3.7 (2025-12-18), read 2026-11-28: docs/source/reference/launcher.md, "
    "router/src/server.rs, tgi-entrypoint.sh",
    matrix={"gpu": ("tgi", "3.3.7")},
    known="tgi-3.3.7",
    settings=_tgi,
    can=frozenset({"context", "tensor_parallel", "kv_cache", "memory_share", "speculative: ngram"}),
    command=("/tgi-entrypoint.sh",),  # which activates the launcher's environment first
    args=(
        *(f"--model-id={MODEL}", "--hostname=0.0.0.0", f"--port={PORT}"),
        "--usage-stats=off",
    ),
    series={
        "queued": Series("tgi_queue_size"),
        "running": Series("tgi_batch_current_size"),
        "requests": Series("tgi_request_count"),
        "prompt_tokens": Series("tgi_request_input_length_sum"),
        "answer_tokens": Series("tgi_request_generated_tokens_sum"),
        "tpot": Series("tgi_request_mean_time_per_token_duration"),
        "queue_time": Series("tgi_request_queue_duration"),
    },
    series_source="TGI v3.3.7 docs/source/reference/metrics.md and backends/v3/src/backend.rs, "
    "read 2026-11-28",
    answered=Answered((Series("tgi_request_count"),), (Series("tgi_request_failure"),)),
    env=OFFLINE,
    start_s=180.0,
    structured="JSON schema, regular expression",
    note="answers whatever model a request names, and calls it /mnt/models",
    frozen="in maintenance since 2025-12-11, archived 2026-03-21: 3.3.7 is the last",
)


CPU = Runtime(
    key="cpu",
    text="Penstock's CPU engine: transformers' continuous batching",
    version="of Penstock",
    image="penstock-engine-python",
    source="serving/engine, of this version",
    matrix={"cpu": ("cpu", "5.17.0")},
    known="cpu",
    settings=nothing,
    can=frozenset(),
    command=("python3", "-m", "serving.engine"),
    args=(MODEL, "--host=0.0.0.0", f"--port={PORT}"),
    ready="/ready",
    series={
        "queued": Series("penstock_num_requests_waiting"),
        "running": Series("penstock_num_requests_running"),
        "kv_used": Series("penstock_kv_cache_usage_perc"),
        "requests": Series("penstock_request_success_total"),
        "prompt_tokens": Series("penstock_prompt_tokens_total"),
        "answer_tokens": Series("penstock_generation_tokens_total"),
        "ttft": Series("penstock_time_to_first_token_seconds"),
        "tpot": Series("penstock_request_time_per_output_token_seconds"),
        "queue_time": Series("penstock_request_queue_time_seconds"),
    },
    series_source="serving/engine/metrics.py and serving/engine/batcher.py, of this version",
    env={"HOME": "/tmp"},  # noqa: S108 - of a container of its own
    name_option="--model-name",
    start_s=60.0,
)
