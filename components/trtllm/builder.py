"""Runs a builder's command, inside the image that has it, and says what the node is."""

from __future__ import annotations

import os
import platform
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from components import leash
from components.trtllm.documented import CUDA
from components.trtllm.key import Node
from components.trtllm.model import Build
from components.trtllm.plan import Plan
from penstock.core.errors import ConfigurationError, EngineRefused

Builder = Callable[[Sequence[str], Callable[[str], None]], int]
"""Runs a command to its end, tells each line it prints, returns its exit code (-n: signal n)."""

_LEASH = Path(leash.__file__)
_SECRET_NAME = re.compile(r"token|secret|passw|credential|api_?key|access_?key", re.IGNORECASE)
_SECRET = re.compile(
    r"\bhf_\w{16,}|(?<=bearer )\S{8,}|(?<=token[=:])\S{8,}|://[^/\s:@]+:[^/\s@]+(?=@)",
    re.IGNORECASE,
)


def in_environment(env: Mapping[str, str]) -> Builder:
    """Return a builder that runs commands with these variables; what they hide is not printed."""

    def run(argv: Sequence[str], tell: Callable[[str], None]) -> int:
        process = start(argv, env)
        try:
            read_lines(process, env, tell)
            return process.wait()
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # its workers, if they are left
            process.wait()

    return run


def start(argv: Sequence[str], env: Mapping[str, str]) -> subprocess.Popen[str]:
    """Start a command that dies with this process, in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, "-IS", str(_LEASH), str(os.getpid()), *argv],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=dict(env),
        text=True,
        errors="replace",
        start_new_session=True,
    )


def read_lines(
    process: subprocess.Popen[str], env: Mapping[str, str], tell: Callable[[str], None]
) -> None:
    """Tell each line that a command prints, to its end, without what `env` hides."""
    hidden = sorted(
        (value for name, value in env.items() if _SECRET_NAME.search(name) and len(value) >= 6),
        key=len,
        reverse=True,
    )
    with process.stdout or open(os.devnull) as lines:  # noqa: PTH123 - never: it is a pipe
        for line in lines:
            tell(_hide(line.rstrip(), hidden))


def _hide(line: str, hidden: Sequence[str]) -> str:
    for value in hidden:
        line = line.replace(value, "<secret>")
    return _SECRET.sub("<secret>", line)


def refuse_absent(plan: Plan, env: Mapping[str, str], *, image: str) -> None:
    """Raise `ConfigurationError` when what the plan runs is not on this machine."""
    absent = [
        stage.argv[0]
        for stage in plan.stages
        if shutil.which(stage.argv[0], path=env.get("PATH", "")) is None
    ]
    scripts = [word for stage in plan.stages for word in stage.argv[1:2] if word.endswith(".py")]
    absent += [path for path in scripts if not Path(path).is_file()]
    if absent:
        raise ConfigurationError(
            f"not on this machine: {', '.join(absent)}; engines are built in {image}, on a GPU",
            hint="run this command in the image of images/penstock-trtllm-python.Containerfile "
            "with --gpus all --ipc host, or add --dry-run to see what it would do",
        )


def node_for(build: Build, env: Mapping[str, str], *, cuda: int = CUDA) -> Node | None:
    """Return the node we are on; None where the result runs on any GPU that has the precision.

    Raises:
        EngineRefused: The node or its image is another than what is to be built is for.
    """
    node = node_here(env, cuda=cuda) if build.strategy == "engine" else None
    version = env.get("TRT_LLM_VERSION", build.image.tag)
    wrong = []
    if node and node.sm != build.gpu.sm:
        wrong.append(
            f"GPU: it is for {build.gpu.name} (SM{build.gpu.sm}), here is {node.gpu} (SM{node.sm})"
        )
    if version != build.image.tag:
        wrong.append(f"TensorRT-LLM: it is for {build.image.tag}, here is {version}")
    if wrong:
        raise EngineRefused(
            "an engine is built where it runs: " + "; ".join(wrong),
            hint="run it on such a node, or name this one's GPU and image",
        )
    return node


def node_here(env: Mapping[str, str], *, cuda: int) -> Node:
    """Ask the driver what this node is.

    Args:
        env: Variables, for PATH.
        cuda: Major version of CUDA in the image.

    Raises:
        ConfigurationError: No NVIDIA driver answers, or its GPUs differ.
    """
    program = shutil.which("nvidia-smi", path=env.get("PATH", ""))
    if program is None:
        raise ConfigurationError(
            "nvidia-smi is not on this machine: no GPU to build for",
            hint="build on a GPU node, or add --dry-run",
        )
    asked = subprocess.run(
        [program, "--query-gpu=name,compute_cap,driver_version", "--format=csv,noheader"],
        capture_output=True,
        text=True,
        check=False,
        env=dict(env),
    )
    rows = {line.strip() for line in asked.stdout.splitlines() if line.strip()}
    if asked.returncode or len(rows) != 1:
        told = asked.stderr.strip() or asked.stdout.strip() or f"exit code {asked.returncode}"
        raise ConfigurationError(f"nvidia-smi names no one kind of GPU: {told}")
    try:
        name, capability, driver = (word.strip() for word in rows.pop().split(","))
        sm, major = int(capability.replace(".", "")), int(driver.split(".")[0])
    except ValueError as problem:
        raise ConfigurationError(f"nvidia-smi: not understood: {asked.stdout!r}") from problem
    return Node(name, sm, major, cuda, platform.system().lower(), platform.machine())
