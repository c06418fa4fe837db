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
HERE = Path(__file__).parent
Ask = Callable[..., Any]


@pytest.fixture(scope="session")
def ask(request: pytest.FixtureRequest) -> Ask:
    """Runs a script of this folder in an engine's environment; returns the JSON it prints last."""

    def run(environment: str, script: str, *arguments: object) -> Any:
        words = [_python(request, environment), str(HERE / script), *map(str, arguments)]
        quiet = {"HF_HUB_OFFLINE": "1", "VLLM_LOGGING_LEVEL": "ERROR"}
        done = subprocess.run(
            words, check=False, capture_output=True, text=True, env=environment_of(**quiet)
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads(done.stdout.splitlines()[-1])

    return run


def _python(request: pytest.FixtureRequest, environment: str) -> str:
    if environment == "ours":
        return sys.executable
    root = Path(request.config.cache.mkdir("conformance")) / environment
    wanted = json.dumps(REQUIREMENTS[environment])
    done = root / "requirements.json"
    if not done.exists() or done.read_text() != wanted:
        shutil.rmtree(root, ignore_errors=True)
        uv = [sys.executable, "-m", "uv"]
        subprocess.run([*uv, "venv", "-q", "--python", sys.executable, str(root)], check=True)
        python = ["--python", str(root / "bin/python")]
        subprocess.run(
            [*uv, "pip", "install", "-q", *python, *REQUIREMENTS[environment]], check=True
        )
        done.write_text(wanted)
    return str(root / "bin/python")
