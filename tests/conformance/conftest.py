"""Environments of the engines whose parsers read what we write.

`python -m pytest -m conformance tests/conformance`: each environment has gigabytes and is made
once, under pytest's cache directory.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from penstock.cli.edge import environment as environment_of

REQUIREMENTS = {
    # what TensorRT-LLM 1.2.1 pins, with the torch it allows
    "transformers-4": ["transformers==4.57.3", "torch==2.9.1"],
    # vLLM's kernels need CUDA 13's bindings of Python, which it does not ask for
    "vllm": ["vllm==0.33.0", "cuda-python>=13,<14", "cuda-bindings>=13,<14"],
}
# what the parsers import, and no more: kernels and the engines' own pins are left out
_IMPORTED = [
    *("torch==2.13.0", "torchvision==0.28.0", "transformers==5.17.0", "huggingface-hub>=1.33,<2"),
    *("aiohttp", "anthropic", "blake3", "cachetools", "cbor2", "cloudpickle", "einops"),
    *("fastapi[standard]<0.137", "gguf", "ijson", "ipython", "jsonschema", "lark", "llguidance"),
    *("mcp", "mistral-common", "model-hosting-container-standards", "msgspec", "numba", "openai"),
    *("openai-harmony", "opentelemetry-api", "opentelemetry-sdk", "orjson", "partial-json-parser"),
    *("pillow", "prometheus-client", "prometheus-fastapi-instrumentator", "psutil", "pybase64"),
    *("py-cpuinfo", "pydantic", "python-json-logger", "pyzmq", "regex", "setproctitle"),
    *("tiktoken", "watchfiles", "xgrammar"),
]
PARSERS = {
    "vllm": ("0.33.0", "0.24.0"),
    "sglang": ("0.5.23", "0.5.21"),
}
"""Engine → released versions whose parser reads what we write; the first is the one we pin."""

ALONE = {
    f"{engine}-{version}": f"{engine}=={version}"
    for engine, versions in PARSERS.items()
    for version in versions
}
"""Environment → what is installed there without what it asks for."""

REQUIREMENTS |= dict.fromkeys(ALONE, _IMPORTED)
HERE = Path(__file__).parent
Ask = Callable[..., Any]
Answer = dict[str, Any]


@pytest.fixture(scope="session")
def ask(request: pytest.FixtureRequest) -> Ask:
    """Runs a script of this folder in an engine's environment; returns the JSON it prints last."""

    def run(environment: str, script: str, *arguments: object) -> Any:
        cache = Path(request.config.cache.mkdir("conformance"))
        return run_in(python_of(cache, environment), script, *arguments)

    return run


def run_in(python: str, script: str, *arguments: object) -> Any:
    """Run a script of this folder with a Python; return the JSON it prints last."""
    words = [python, str(HERE / script), *map(str, arguments)]
    quiet = {"HF_HUB_OFFLINE": "1", "VLLM_LOGGING_LEVEL": "ERROR"}
    done = subprocess.run(
        words, check=False, capture_output=True, text=True, env=environment_of(**quiet)
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def python_of(cache: Path, environment: str) -> str:
    """Return the Python of an environment, which is made where it is not there yet."""
    if environment == "ours":
        return sys.executable
    root = cache / environment
    wanted = json.dumps([*REQUIREMENTS[environment], *ALONE.get(environment, "").split()])
    done = root / "requirements.json"
    if not done.exists() or done.read_text() != wanted:
        shutil.rmtree(root, ignore_errors=True)
        uv = [sys.executable, "-m", "uv"]
        subprocess.run([*uv, "venv", "-q", "--python", sys.executable, str(root)], check=True)
        install = [*uv, "pip", "install", "-q", "--python", str(root / "bin/python")]
        subprocess.run([*install, *REQUIREMENTS[environment]], check=True)
        if environment in ALONE:
            subprocess.run([*install, "--no-deps", ALONE[environment]], check=True)
        done.write_text(wanted)
    return str(root / "bin/python")
