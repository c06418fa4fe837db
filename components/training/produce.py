"""Makes a trained checkpoint: checks, a worker, the base's own files, one rename."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components import child
from components.child import Voice
from components.scratch import scratch
from components.training import checkpoints, needs
from components.training.export import write_portable_config
from components.training.train_job import deepspeed
from penstock.core.errors import (
    CheckpointBroken,
    ConfigurationError,
    TrainingFailed,
    disk_errors,
)
from penstock.core.training import Training
from registry.conformance import inspection
from registry.conformance.reading import Checkpoint, read
from registry.store import require_space

WORKER = ("-m", "components.training.worker")
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".gguf")
_INDEX = "model.safetensors.index.json"
VOICE = Voice(
    who="the trainer",
    error=TrainingFailed,
    killed="lower training.batch_rows and raise gradient_accumulation, or set "
    "gradient_checkpointing: true; what it saved is resumed from",
    failed="correct training in model.yaml; what it saved is resumed from",
)

Runner = Callable[[Mapping[str, Any], Callable[[child.Body], None]], child.Ran]
"""Computes a request of `fit.train`, telling its lines."""

Tell = Callable[[int, int, str], None]
"""Is told (steps done, steps in all, what is done now)."""


@dataclass(frozen=True, slots=True)
class Work:
    """What is trained, on what, and how."""

    base: Path
    """Folder of the checkpoint to start from."""

    data: Path
    """Rows, JSONL."""

    training: Training
    progress: Path
    """Folder of checkpoints: what an interrupted training resumes from. It must be of this work
    alone; see `key` in `components.steps.training`."""


@dataclass(frozen=True, slots=True)
class Made:
    """What came of it beside the folder."""

    found: Mapping[str, Any]
    """As `fit.train` returns it."""

    wall_s: float
    peak_rss_bytes: int
    """Of the worker."""


def produce(
    work: Work,
    target: Path,
    on_progress: Tell,
    on_point: Callable[[Mapping[str, float]], None],
    *,
    runner: Runner | None = None,
) -> Made:
    """Write the whole checkpoint folder `target`, or nothing; a rerun resumes.

    Configuration, tokenizer and template are the base's own files, byte for byte, unless some
    engine would misread those: what transformers 5 alone wrote is made readable for 4.57 too.

    Args:
        work: What is trained.
        target: Folder to make; must not exist.
        on_progress: Told how far it is.
        on_point: Told each point of the curves as it is known.
        runner: Where it is computed; None: in a process of this machine.

    Raises:
        ConfigurationError: The base cannot be trained so.
        DataRefused: The rows cannot be trained on.
        DiskFull: No space for checkpoints and the result.
        TrainingFailed: The loss is no number, or the process was killed.
        CheckpointBroken: What was written is not the base with other weights.
    """
    if target.exists():
        raise ConfigurationError(f"{target}: exists already", hint="name a folder that does not")
    base = read(work.base)
    require_trainable(base)
    shapes = {name: tensor.shape for name, tensor in base.tensors.items()}
    adapter = work.training.adapter
    if adapter is not None:
        needs.targeted(adapter, needs.linear_layers(shapes))
    size = sum(tensor.size for tensor in base.tensors.values())
    work.progress.mkdir(parents=True, exist_ok=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    require_space(work.progress, needs.disk_bytes(work.training, shapes, size))
    with disk_errors(target), scratch(target) as room:
        raw, whole = room / "raw", room / "whole"
        raw.mkdir()

        def on_line(body: Mapping[str, Any]) -> None:
            if "progress" in body:
                on_progress(*body["progress"])
            if "point" in body:
                on_point(body["point"])

        request = {
            "training": work.training.model_dump(mode="json"),
            "base": str(work.base),
            "data": str(work.data),
            "progress": str(work.progress),
            "resume": _resumed(work.progress),
            "scratch": str(raw),
            "context": base.text.get("max_position_embeddings", 2048),
            "deepspeed": deepspeed(work.training.distributed),
        }
        ran = (runner or here())(request, on_line)
        assemble(work.base, raw, whole)
        require_same_shape(base, read(whole))
        if inspection.broken(inspection.inspect(whole, work.base)):
            write_portable_config(whole)  # the base was written by transformers 5 alone
        inspection.require(inspection.inspect(whole, work.base), "the trained checkpoint")
        whole.rename(target)
    return Made(ran.result, ran.wall_s, ran.peak_rss_bytes)


def here(worker: tuple[str, ...] = WORKER) -> Runner:
    """Return what computes in a process of this machine; it dies with this one."""
    return lambda request, on_line: child.run(request, on_line, worker=worker, voice=VOICE)


def _resumed(progress: Path) -> str | None:
    found = checkpoints.last(progress)
    return str(found) if found else None


def require_trainable(base: Checkpoint) -> None:
    """Raise `ConfigurationError` for a base whose weights cannot be trained."""
    if base.quantization or base.modelopt:
        raise ConfigurationError(
            f"{base.folder}: the base is quantized; allowed: weights in 16 or 32 bits",
            hint="set source to the checkpoint it was made from; quantizing comes after training",
        )
    if not base.template:
        raise ConfigurationError(
            f"{base.folder}: the base has no chat template; allowed: one with which questions and "
            "answers are told apart, in training as in serving",
            hint="start from the instruction-tuned checkpoint, or add chat_template.jinja to it",
        )


def require_same_shape(base: Checkpoint, trained: Checkpoint) -> None:
    """Raise `CheckpointBroken` unless it holds the base's tensors, with other values."""
    tied = base.text.get("tie_word_embeddings")
    left_out = {"lm_head.weight"} if tied else set()
    theirs = {n: t.shape for n, t in base.tensors.items() if n not in left_out}
    ours = {n: t.shape for n, t in trained.tensors.items() if n not in left_out}
    apart = sorted(set(theirs.items()) ^ set(ours.items()))
    if apart:
        raise CheckpointBroken(
            f"the trained checkpoint: {apart[0][0]} is not as in the base, nor {len(apart) - 1} "
            "other entries",
            hint="this is a bug in Penstock or transformers: nothing was stored",
        )


def assemble(base: Path, raw: Path, whole: Path) -> None:
    """Make a folder of the base's files and the new weights."""
    whole.mkdir()
    for path in sorted(base.iterdir()):
        inherited = path.suffix not in _WEIGHTS and path.name != _INDEX
        if path.is_file() and inherited and not path.name.startswith("."):
            shutil.copyfile(path, whole / path.name)
    for path in sorted(raw.iterdir()):
        if path.suffix == ".safetensors" or path.name == _INDEX:
            path.rename(whole / path.name)
            (whole / path.name).chmod(0o644)  # safetensors writes for its owner only
