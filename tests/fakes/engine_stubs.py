"""Engines as a probe and a scraper meet them: their own paths, and metrics under their own names.

The names and labels are written here from the engines' sources, not from what we look for.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def histogram(name: str, labels: str, bounds: dict[str, int]) -> str:
    """Return a histogram's lines; the bounds are cumulative, and `+Inf` is among them."""
    open_ = f"{{{labels}," if labels else "{"
    lines = [f"# TYPE {name} histogram"]
    lines += [f'{name}_bucket{open_}le="{bound}"}} {count}' for bound, count in bounds.items()]
    rest = f"{{{labels}}}" if labels else ""
    return "\n".join([*lines, f"{name}_count{rest} {bounds['+Inf']}", f"{name}_sum{rest} 1.5"])


def plain(kind: str, name: str, labels: str, value: float) -> str:
    """Return a gauge's or a counter's lines."""
    return f"# TYPE {name} {kind}\n{name}{{{labels}}} {value}"


_LATE = {"0.5": 3, "1.0": 6, "+Inf": 7}
_V = 'model_name="chat",engine="0"'
_HTTP = "\n".join(
    [
        "# TYPE http_requests counter",
        'http_requests_total{handler="/v1/chat/completions",method="POST",status="2xx"} 7',
        'http_requests_total{handler="/v1/completions",method="POST",status="5xx"} 2',
        'http_requests_total{handler="/health",method="GET",status="2xx"} 99',
        "# TYPE process_start_time_seconds gauge",
        "process_start_time_seconds 5.0",
    ]
)
_VLLM = "\n".join(
    [
        plain("gauge", "vllm:num_requests_waiting", _V, 4),
        plain("gauge", "vllm:num_requests_running", _V, 9),
        plain("gauge", "vllm:kv_cache_usage_perc", _V, 0.25),
        plain("counter", "vllm:request_success_total", f'{_V},finished_reason="stop"', 5),
        plain("counter", "vllm:request_success_total", f'{_V},finished_reason="length"', 2),
        plain("counter", "vllm:prompt_tokens_total", _V, 700),
        plain("counter", "vllm:generation_tokens_total", _V, 90),
        plain("counter", "vllm:num_preemptions_total", _V, 1),
        histogram("vllm:time_to_first_token_seconds", _V, _LATE),
        histogram("vllm:inter_token_latency_seconds", _V, _LATE),
        histogram("vllm:request_time_per_output_token_seconds", _V, _LATE),
        histogram("vllm:request_queue_time_seconds", _V, _LATE),
    ]
)
_S = 'model_name="chat",engine_type="unified",tp_rank="0",pp_rank="0"'
_SGLANG = "\n".join(
    [
        plain("gauge", "sglang:num_queue_reqs", _S, 4),
        plain("gauge", "sglang:num_running_reqs", _S, 9),
        plain("gauge", "sglang:token_usage", _S, 0.25),
        plain("counter", "sglang:num_requests_total", 'model_name="chat",is_streaming="true"', 5),
        plain("counter", "sglang:num_requests_total", 'model_name="chat",is_streaming="false"', 2),
        plain("counter", "sglang:prompt_tokens_total", 'model_name="chat"', 700),
        plain("counter", "sglang:generation_tokens_total", 'model_name="chat"', 90),
        histogram("sglang:time_to_first_token_seconds", 'model_name="chat"', _LATE),
        histogram("sglang:request_time_per_output_token_seconds", 'model_name="chat"', _LATE),
        histogram("sglang:queue_time_seconds", _S, _LATE),
        "# TYPE sglang:http_responses counter",
        'sglang:http_responses_total{endpoint="/v1/completions",status_code="200",method="POST"} 7',
        'sglang:http_responses_total{endpoint="/v1/completions",status_code="503",method="POST"} 2',
        'sglang:http_responses_total{endpoint="/health",status_code="200",method="GET"} 99',
    ]
)
_T = 'model_name="undefined",engine_type="undefined"'
_TRTLLM = "\n".join(
    [
        plain("gauge", "trtllm_num_requests_waiting", _T, 4),
        plain("gauge", "trtllm_num_requests_running", _T, 9),
        plain("gauge", "trtllm_kv_cache_utilization", _T, 0.25),
        plain("counter", "trtllm_request_success_total", f'{_T},finished_reason="stop"', 7),
        plain("counter", "trtllm_prompt_tokens_total", _T, 700),
        plain("counter", "trtllm_generation_tokens_total", _T, 90),
        histogram("trtllm_time_to_first_token_seconds", _T, _LATE),
        histogram("trtllm_time_per_output_token_seconds", _T, _LATE),
        histogram("trtllm_request_queue_time_seconds", _T, _LATE),
    ]
)
_M = 'model="chat",version="1"'
_TRITON = "\n".join(
    [
        plain("counter", "nv_inference_request_success", _M, 7),
        "# TYPE nv_inference_request_failure counter",
        f'nv_inference_request_failure{{{_M},reason="BACKEND"}} 2',
        f'nv_inference_request_failure{{{_M},reason="CANCELED"}} 0',
        plain("gauge", "nv_inference_pending_request_count", _M, 0),
        plain("gauge", "vllm:num_requests_waiting", _M, 4),
        plain("gauge", "vllm:num_requests_running", _M, 9),
        plain("gauge", "vllm:gpu_cache_usage_perc", _M, 0.25),
        plain("counter", "vllm:prompt_tokens_total", _M, 700),
        plain("counter", "vllm:generation_tokens_total", _M, 90),
        histogram("vllm:time_to_first_token_seconds", _M, _LATE),
        histogram("vllm:time_per_output_token_seconds", _M, _LATE),
        histogram("vllm:request_queue_time_seconds", _M, _LATE),
    ]
)
_E = 'model="tensorrt_llm",version="1"'
_TRITON_ENGINE = "\n".join(
    [
        plain("gauge", "nv_trt_llm_request_metrics", f'{_E},request_type="waiting"', 4),
        plain("gauge", "nv_trt_llm_request_metrics", f'{_E},request_type="scheduled"', 9),
        plain("gauge", "nv_trt_llm_request_metrics", f'{_E},request_type="max"', 64),
        plain(
            "gauge",
            "nv_trt_llm_kv_cache_block_metrics",
            f'{_E},kv_cache_block_type="fraction"',
            0.25,
        ),
        plain("gauge", "nv_trt_llm_kv_cache_block_metrics", f'{_E},kv_cache_block_type="max"', 900),
        plain("counter", "nv_inference_request_success", 'model="ensemble",version="1"', 7),
        plain("counter", "nv_inference_request_success", 'model="preprocessing",version="1"', 7),
        histogram(
            "nv_inference_first_response_histogram_ms",
            'model="ensemble",version="1"',
            {"500": 3, "1000": 6, "+Inf": 7},
        ),
    ]
)
_TGI = "\n".join(
    [
        plain("gauge", "tgi_queue_size", "", 4),
        plain("gauge", "tgi_batch_current_size", "", 9),
        plain("counter", "tgi_request_count", "", 9),
        plain("counter", "tgi_request_failure", 'err="generation"', 2),
        "# TYPE tgi_request_input_length histogram",
        'tgi_request_input_length_bucket{le="+Inf"} 7',
        "tgi_request_input_length_sum 700",
        "tgi_request_input_length_count 7",
        "# TYPE tgi_request_generated_tokens histogram",
        'tgi_request_generated_tokens_bucket{le="+Inf"} 7',
        "tgi_request_generated_tokens_sum 90",
        "tgi_request_generated_tokens_count 7",
        histogram("tgi_request_mean_time_per_token_duration", "", _LATE),
        histogram("tgi_request_queue_duration", "", _LATE),
    ]
)


@dataclass(frozen=True)
class Stub:
    """What one engine answers."""

    ready: frozenset[str]
    """Paths that say 503 until the model is loaded, and 200 from then on."""

    alive: frozenset[str]
    """Paths that say 200 as soon as it listens."""

    metrics: str
    """Path of the Prometheus text; every engine that has others answers those in another form."""

    text: str
    json: frozenset[str] = field(default_factory=frozenset)
    names_matter: bool = True
    """Whether it refuses a model that is not called so."""


def _stub(ready: str, alive: str, metrics: str, text: str, json: str = "") -> Stub:
    return Stub(
        frozenset(ready.split()), frozenset(alive.split()), metrics, text, frozenset(json.split())
    )


STUBS = {
    # vllm/entrypoints/serve/instrumentator: it listens once the engine runs
    "vllm": _stub("/health /v1/models /ping", "", "/metrics", f"{_VLLM}\n{_HTTP}"),
    # sglang/srt/entrypoints/http_server.py
    "sglang": _stub("/health /health_generate /ready /v1/models", "", "/metrics", _SGLANG),
    # tensorrt_llm/serve/openai_server.py
    "tensorrt-llm": _stub(
        "/health /health_generate /v1/models", "", "/prometheus/metrics", _TRTLLM, "/metrics"
    ),
    "tensorrt-llm-engine": _stub(
        "/health /health_generate /v1/models", "", "/prometheus/metrics", _TRTLLM, "/metrics"
    ),
    # Triton's OpenAI front end: routers observability and models
    "triton": _stub("/health/ready /v1/models", "", "/metrics", _TRITON),
    # Triton's own server; its metrics are on a port of their own
    "triton-engine": _stub("/v2/health/ready", "/v2/health/live", "/metrics", _TRITON_ENGINE),
    # python/kserve/kserve/protocol/rest
    "huggingface": _stub("/v2/health/ready", "/v2/health/live /v1/models", "/metrics", _VLLM),
    # router/src/server.rs
    "tgi": replace(_stub("/health /v1/models", "", "/metrics", _TGI), names_matter=False),
}


Names = Callable[[], set[str]]
"""What clients may call the model; empty while it is loaded."""


class Answers(BaseHTTPRequestHandler):
    """Answers as a stub; nobody gets what a model would say before there is one."""

    stub: Stub
    names: Names

    def do_GET(self) -> None:
        stub = self.stub
        if self.path == stub.metrics:
            self._say(200, stub.text + "\n")
        elif self.path in stub.json:
            self._say(200, "[]")
        elif self.path in stub.ready - stub.alive:
            self._say(200 if self.names() else 503, "ok")
        else:
            self._say(200 if self.path in stub.alive else 404, "ok")

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        name = asked["model"]
        if self.path != "/v1/chat/completions":
            return self._say(404, f"no such path: {self.path}")
        if name not in self.names() and self.stub.names_matter:
            return self._say(404, f"no model {name!r}")
        part = "delta" if asked.get("stream") else "message"
        message = {"role": "assistant", "content": "seven"}
        choice = {"index": 0, part: message, "finish_reason": "stop"}
        used = {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4}
        text = json.dumps({"model": name, "choices": [choice], "usage": used})
        streamed = f"data: {text}\n\ndata: [DONE]\n\n"
        return self._say(200, streamed if part == "delta" else text)

    def _say(self, code: int, text: str) -> None:
        self.send_response(code)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        pass


def answers(stub: Stub, names: Names) -> type[Answers]:
    """Return what an HTTP server answers with as a stub."""
    return type("AnswersOfOne", (Answers,), {"stub": stub, "names": staticmethod(names)})


@contextmanager
def served(stub: Stub, *, loaded: bool = True) -> Iterator[str]:
    """Serve a stub; yields its URL."""
    handler = answers(stub, lambda: {"chat"} if loaded else set())
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
