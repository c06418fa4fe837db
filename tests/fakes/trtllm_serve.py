"""trtllm-serve without a GPU: its options, its files, its routes, and answers from elsewhere.

What a GPU would compute, the environment says. `FAKE_ANSWERS` names a file with a mapping of
prompts to answers for `parent` and `candidate`; without it the CPU engine serves the checkpoint
itself, or, for what was built, the one that `FAKE_CANDIDATE` names.
"""

from __future__ import annotations

import json
import math
import os
import signal
import sys
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml

from components.trtllm.documented import TORCH_ARGS, TRT_ARGS

_ENV = os.environ  # noqa: TID251 - a process of its own
_DIES_AFTER = 3


def serve(model: Path, options: Mapping[str, str], behaviour: str) -> None:
    """Serve until the process ends."""
    tensorrt = options.get("backend") == "tensorrt"
    _check(model, options, tensorrt=tensorrt)
    token = _ENV.get("HF_TOKEN", "")
    sys.stdout.write(f"[TRT-LLM] [I] loading {model}, token={token}\n")
    sys.stdout.flush()
    if behaviour == "crash":
        sys.exit("RuntimeError: [TensorRT-LLM][ERROR] CUDA out of memory")
    if behaviour == "hang":
        threading.Event().wait(60)
    built = tensorrt or (model / "hf_quant_config.json").exists()
    told = _ENV.get("FAKE_ANSWERS")
    if told is None:
        folder = _ENV["FAKE_CANDIDATE"] if built else str(model)
        words = ("--model-name", model.name, "--host", options["host"], "--port", options["port"])
        os.execv(sys.executable, [sys.executable, "-m", "serving.engine", folder, *words])  # noqa: S606
    answers = json.loads(Path(told).read_text())["candidate" if built else "parent"]
    _Handler.name, _Handler.answers = model.name, answers
    _Handler.logprobs = not tensorrt  # it was not built with gather_generation_logits
    _Handler.left = _DIES_AFTER if behaviour == "die" else math.inf
    ThreadingHTTPServer((options["host"], int(options["port"])), _Handler).serve_forever()


def _check(model: Path, options: Mapping[str, str], *, tensorrt: bool) -> None:
    if not (model / "config.json").is_file():
        sys.exit(f"error: {model}: no model")
    if tensorrt and not (Path(options["tokenizer"]) / "tokenizer.json").is_file():
        sys.exit("error: no tokenizer")
    given = yaml.safe_load(Path(options["extra_llm_api_options"]).read_text())
    known = (TRT_ARGS if tensorrt else TORCH_ARGS).names
    if unknown := given.keys() - known:
        sys.exit(f"error: extra fields not permitted: {sorted(unknown)}")


class _Handler(BaseHTTPRequestHandler):
    """The routes that a judge asks."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    name: str
    answers: Mapping[str, str]
    logprobs: bool
    left: float

    def log_message(self, *_: object) -> None:
        """Say nothing: a line per request is no news."""

    def do_GET(self) -> None:
        found = {"/health": {}, "/v1/models": {"data": [{"id": self.name}]}}.get(self.path)
        self._json(404 if found is None else 200, found or {})

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        _Handler.left -= 1
        if self.left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        words = self.answers[asked["messages"][-1]["content"]].split()
        if asked.get("stream"):
            self._stream(words)
        elif not self.logprobs:
            message = "`gather_generation_logits` must be `True` to use `top_logprobs`"
            self._json(400, {"object": "error", "message": message})
        else:
            self._json(200, {"choices": [_choice(words)]})

    def _stream(self, words: list[str]) -> None:
        usage = {"prompt_tokens": 1, "completion_tokens": len(words)}
        chunks: list[dict[str, Any]] = [
            {"choices": [{"index": 0, "delta": {"content": " ".join(words)}}]},
            {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
            {"choices": [], "usage": usage},
        ]
        body = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"
        self._send(200, "text/event-stream", body.encode())

    def _json(self, status: int, body: object) -> None:
        self._send(status, "application/json", json.dumps(body).encode())

    def _send(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _choice(words: list[str]) -> dict[str, Any]:
    content = [
        {
            "token": word,
            "logprob": math.log(0.98),
            "top_logprobs": [
                {"token": word, "logprob": math.log(0.98)},
                {"token": "otherwise", "logprob": math.log(0.01)},
            ],
        }
        for word in words
    ]
    return {"message": {"content": " ".join(words)}, "logprobs": {"content": content}}
