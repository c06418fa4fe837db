"""SGLang."""

from __future__ import annotations

from collections.abc import Iterator

from penstock.core.serving import Eagle, Ngram, Serving
from penstock.core.spec import ModelSpec
from serving.runtimes.runtime import CAN_ALL, PORT, Runtime, split
from serving.runtimes.settings import MODEL, Option, Setting, adapters, inside, option
from serving.runtimes.signals import Answered, Series
from serving.runtimes.vllm import OFFLINE


def _speculative(wish: Serving) -> Iterator[Setting]:
    field, guess = "serving.speculative", wish.speculative
    if guess is None:
        return
    if isinstance(guess, Ngram):
        yield Option(field, "--speculative-algorithm", ("NGRAM",))
        yield Option(field, "--speculative-num-draft-tokens", (str(guess.tokens),))
        return
    kind = "STANDALONE"
    if isinstance(guess, Eagle):
        kind = "EAGLE3" if guess.version == 3 else "EAGLE"
    yield Option(field, "--speculative-algorithm", (kind,))
    yield Option(field, "--speculative-draft-model-path", (inside(guess.model),))
    # a chain: one token per step; the one that the large model itself adds is counted too
    yield Option(field, "--speculative-num-steps", (str(guess.tokens),))
    yield Option(field, "--speculative-eagle-topk", ("1",))
    yield Option(field, "--speculative-num-draft-tokens", (str(guess.tokens + 1),))


def _settings(spec: ModelSpec) -> Iterator[Setting]:
    wish, (tensor, stages) = spec.serving, split(spec)
    yield Option("hardware.count", "--tp-size", (str(tensor),))
    if stages > 1:
        yield Option("serving.pipeline_parallel", "--pp-size", (str(stages),))
    yield from option("serving.context", "--context-length", wish.context)
    yield from option("serving.concurrency", "--max-running-requests", wish.concurrency)
    yield from option("serving.max_queued", "--max-queued-requests", wish.max_queued)
    yield from option("serving.memory_share", "--mem-fraction-static", wish.memory_share)
    if wish.kv_cache == "fp8":
        yield Option("serving.kv_cache", "--kv-cache-dtype", ("fp8_e4m3",))
    if wish.chunked_prefill is not None:  # 8192: what it takes by itself on most GPUs
        size = "8192" if wish.chunked_prefill else "-1"
        yield Option("serving.chunked_prefill", "--chunked-prefill-size", (size,))
    if wish.prefix_caching is False:
        yield Option("serving.prefix_caching", "--disable-radix-cache")
    yield from _speculative(wish)
    if wish.chat_template is not None:
        yield Option("serving.chat_template", "--chat-template", (inside(wish.chat_template),))
    yield from option("serving.tool_parser", "--tool-call-parser", wish.tool_parser)
    yield from option("serving.reasoning_parser", "--reasoning-parser", wish.reasoning_parser)
    if wish.lora is not None:
        yield Option("serving.lora.max_rank", "--max-lora-rank", (str(wish.lora.max_rank),))
        yield Option("serving.lora", "--lora-paths", adapters(wish.lora.adapters))


SGLANG = Runtime(
    key="sglang",
    text="SGLang",
    version="0.5.23",
    image="lmsysorg/sglang:v0.5.23",
    source="SGLang 0.5.23 of PyPI, read 2026-11-28: sglang/srt/server_args.py, "
    "sglang/srt/entrypoints/http_server.py; the image's tag is the release's name "
    "with a v, as for 0.5.17, which was seen; this one was not pulled",
    matrix={"gpu": ("sglang", "0.5.23")},
    known="sglang-0.5.23",
    settings=_settings,
    can=frozenset(CAN_ALL) - {"max_answer_tokens"},
    command=("python3", "-m", "sglang.launch_server"),
    args=(f"--model-path={MODEL}", "--host=0.0.0.0", f"--port={PORT}", "--enable-metrics"),
    series={
        "queued": Series("sglang:num_queue_reqs"),
        "running": Series("sglang:num_running_reqs"),
        "kv_used": Series("sglang:token_usage"),
        "requests": Series("sglang:num_requests_total"),
        "prompt_tokens": Series("sglang:prompt_tokens_total"),
        "answer_tokens": Series("sglang:generation_tokens_total"),
        "ttft": Series("sglang:time_to_first_token_seconds"),
        "tpot": Series("sglang:request_time_per_output_token_seconds"),
        "queue_time": Series("sglang:queue_time_seconds"),
    },
    series_source="SGLang 0.5.23, sglang/srt/observability/metrics_collector.py and "
    "http_request_metrics.py, read 2026-11-28",
    answered=Answered(
        (Series("sglang:http_responses_total", {"endpoint": "/v1/"}),),
        (Series("sglang:http_responses_total", {"endpoint": "/v1/", "status_code": "5"}),),
    ),
    env={
        **OFFLINE,
        # else /health waits for a token, for a second or more: a busy engine would look dead
        "SGLANG_ENABLE_HEALTH_ENDPOINT_GENERATION": "0",
    },
    name_option="--served-model-name",
    tensor_option="--tp-size",
    structured="JSON schema, regular expression, EBNF",
    over_nodes=(  # docs/references/multi_node_deployment/multi_node.md
        ("--nnodes", "{nodes}"),
        ("--node-rank", "$(LWS_WORKER_INDEX)"),
        ("--dist-init-addr", "$(LWS_LEADER_ADDRESS):20000"),
    ),
    multi_node="LeaderWorkerSet: a pipeline stage per node",
)
