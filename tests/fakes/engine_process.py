"""An engine's command as a node meets it: its parser, its model's folder, its group, its endpoints.

In a pod this is the program that a runtime's command names, so that what Penstock writes is read:
an option that the engine does not know ends it, as does a checkpoint that is not there. Nothing is
computed.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections.abc import Mapping
from http.server import ThreadingHTTPServer
from pathlib import Path

from serving.runtimes.catalog import RUNTIMES
from serving.runtimes.known import known
from tests.fakes.engine_stubs import STUBS, answers

LOADS_S = 2.0
_NEVER = threading.Event()
_PORTS = ("--port", "--http_port", "--http-port", "--openai-port")
_MODELS = ("--model-path", "--model_dir", "--model-id", "--tokenizer")
_NAMES = ("--served-model-name", "--model_name")
_RENDEZVOUS = {"vllm": 29501, "sglang": 20000}
_GO = b"go"


def main(key: str, words: list[str]) -> None:
    """Behave as an engine that was started with some words, until it is ended."""
    told = _read(key, words)
    models = [Path(told[name]) for name in _MODELS if name in told]
    models += [Path(word) for word in words if word.startswith("/")]
    for folder in models:
        if not any(folder.glob("*.json")):
            sys.exit(f"{key}: no model in {folder}")
    if "--nnodes" in told:
        _meet(key, told)
    begun = time.monotonic()

    def names() -> set[str]:
        loaded = time.monotonic() - begun > LOADS_S
        return _called(told, models) if loaded else set()

    port = next(int(told[name]) for name in _PORTS if name in told)
    if not STUBS[key].alive:  # it listens when it can answer
        _NEVER.wait(LOADS_S)
    with ThreadingHTTPServer(("0.0.0.0", port), answers(STUBS[key], names)) as server:
        server.serve_forever()


def _read(key: str, words: list[str]) -> dict[str, str]:
    """Return every option's value; an engine's parser ends the process at what it does not know."""
    options, found = known(RUNTIMES[key].known), dict[str, str]()
    for word in words:
        if word.startswith("-"):
            name, _, value = word.partition("=")
            if options.option(word) is None:
                sys.exit(f"{key}: error: unrecognized arguments: {word}")
            found[name] = value
    return found


def _called(told: Mapping[str, str], models: list[Path]) -> set[str]:
    """Return the model's names: as it is told, or a folder's, which is all that some look at."""
    named = {told[name] for name in _NAMES if name in told}
    repository = told.get("--model-repository")
    if repository is not None:
        named |= {each.name for each in Path(repository).iterdir()}
    return named or {folder.name for folder in models}


def _meet(key: str, told: Mapping[str, str]) -> None:
    """Wait for the others of a group; a worker stays for as long as the leader does."""
    rank, nodes = int(told["--node-rank"]), int(told["--nnodes"])
    where = told.get("--master-addr") or told["--dist-init-addr"]
    host, _, port = where.partition(":")
    at = int(port or _RENDEZVOUS[key])
    if rank == 0:
        with socket.create_server(("", at)) as server:
            others = [server.accept()[0] for _ in range(nodes - 1)]
        for other in others:
            other.sendall(_GO)
            threading.Thread(target=_until_it_goes, args=(other,), daemon=True).start()
        return
    if key == "vllm" and "--headless" not in told:
        sys.exit("vllm: a worker would answer by itself")
    _join(host, at)
    sys.exit(f"{key}: the leader has gone")


def _join(host: str, port: int) -> None:
    while True:
        try:
            with socket.create_connection((host, port), timeout=5) as leader:
                leader.settimeout(None)
                while leader.recv(len(_GO)):
                    pass
                return
        except OSError:  # it has no address yet, or waits for nobody yet
            _NEVER.wait(0.5)


def _until_it_goes(other: socket.socket) -> None:
    other.recv(1)
    os._exit(1)  # an engine that has lost a part of itself


PROGRAMS = {
    "usr/local/bin/vllm": "vllm",
    "sglang/launch_server.py": "sglang",
    "usr/local/bin/trtllm-serve": "tensorrt-llm",
    "opt/tritonserver/python/openai/openai_frontend/main.py": "triton",
    "huggingfaceserver/__main__.py": "huggingface",
    "tgi-entrypoint.sh": "tgi",
}
"""Where an engine's image has what its runtime's command names, and whose it is."""


def program(key: str, repository: Path) -> str:
    """Return the text of a file that is an engine's program, for a container that sees us."""
    return (
        "#!/usr/bin/env python3\n"
        f"import sys; sys.path.insert(0, {str(repository)!r})\n"
        "from tests.fakes.engine_process import main\n"
        f"main({key!r}, sys.argv[{2 if key == 'vllm' else 1}:])\n"  # `vllm serve`
    )
