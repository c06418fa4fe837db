"""Makes a quantized checkpoint: checks, a worker, the parent's own files, one rename."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.quantization.calibration import calibration_of, tokens_of
from components.quantization.child import run
from components.quantization.fit import Machine, fitting_group_size, groups_of, plan
from components.quantization.search import Sensitivity
from components.scratch import scratch
from penstock.core.errors import ConfigurationError, disk_errors
from penstock.core.recipes import Calibration, Recipe, parse_recipe
from registry.conformance import inspection
from registry.conformance.reading import read
from registry.store import require_space

_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".gguf")
SENSITIVITY = Calibration(samples=16, length=128)
"""Prompts that sensitivity is measured on: it only ranks layers."""

_NOT_INHERITED = ("model.safetensors.index.json", "hf_quant_config.json")


@dataclass(frozen=True, slots=True)
class Made:
    """A quantized checkpoint and what it cost."""

    folder: Path
    recipe: Recipe
    wall_s: float
    peak_rss_bytes: int
    """Of the worker."""

    planned_bytes: int
    """What `fit` said the peak would be at most."""

    parent_bytes: int
    size_bytes: int
    """Of the files with weights."""

    layers: int
    """Linear layers that are quantized."""


def produce(
    parent: Path,
    recipe: Recipe,
    target: Path,
    prompts: Sequence[str],
    on_progress: Callable[[int, int, str], None],
    *,
    machine: Machine | None = None,
) -> Made:
    """Write the whole checkpoint folder `target`, or nothing.

    A killed caller leaves a hidden folder beside it, which the next call removes.

    Configuration, tokenizer and template are the parent's own files, byte for byte, but for the
    one key `quantization_config`: what transformers 5 saves again, 4.57 misreads without a word.

    Args:
        parent: Folder of the checkpoint in 16 or 32 bits.
        recipe: How.
        target: Folder to make; must not exist.
        prompts: To calibrate with, as `calibration.rendered` gives them; ignored where the recipe
            needs none.
        on_progress: Told (stages done, stages in all, what is done now).
        machine: Where this runs; None asks the machine.

    Raises:
        RecipeImpossible: It cannot be made of this checkpoint here.
        DataRefused: The recipe needs prompts, and there are none.
        DiskFull: No space for the result.
        CheckpointBroken: The library wrote what some engine would read wrongly.
    """
    if target.exists():
        raise ConfigurationError(f"{target}: exists already", hint="name a folder that does not")
    here = machine or machine_here()
    checkpoint = read(parent)
    inspection.require(inspection.inspect(parent), str(parent))
    planned = plan(checkpoint, recipe, prompts, here)
    wanted = calibration_of(recipe)
    rows = tokens_of(parent, prompts, wanted) if wanted else []
    target.parent.mkdir(parents=True, exist_ok=True)
    require_space(target.parent, planned.disk_bytes)
    with disk_errors(target), scratch(target) as room:
        raw, whole = room / "raw", room / "whole"
        raw.mkdir()
        ran = run(
            {
                "task": recipe.producer,
                "parent": str(parent),
                "scratch": str(raw),
                "recipe": recipe.model_dump(mode="json"),
                "ignore": planned.ignore,
                "fp8_layers": planned.fp8_layers,
                "tokens": rows,
                "gpu": here.gpu,
            },
            on_progress,
            worker=here.worker,
        )
        _assemble(parent, raw, whole)
        inspection.require(inspection.inspect(whole, parent), recipe.label)
        whole.rename(target)
    return Made(
        folder=target,
        recipe=recipe,
        wall_s=ran.wall_s,
        peak_rss_bytes=ran.peak_rss_bytes,
        planned_bytes=planned.memory_bytes,
        parent_bytes=_size(parent),
        size_bytes=_size(target),
        layers=len(planned.layers),
    )


def sensitivities(
    parent: Path,
    prompts: Sequence[str],
    on_progress: Callable[[int, int, str], None],
    *,
    group_size: int = 128,
    machine: Machine | None = None,
) -> list[Sensitivity]:
    """Measure, for every group of layers that engines fuse, what rounding it alone does.

    Costs one pass of at most `SENSITIVITY` prompts per group of layers.

    Args:
        parent: Folder of the checkpoint in 16 or 32 bits.
        prompts: As `calibration.rendered` gives them; the first ones are used.
        on_progress: Told (done, in all, what is done now).
        group_size: Weights per scale; the next smaller size that divides is taken.
        machine: Where this runs; None asks the machine.

    Raises:
        RecipeImpossible: The model cannot be quantized, or does not fit in memory.
        DataRefused: There are no prompts.
    """
    here = machine or machine_here()
    checkpoint = read(parent)
    fitting = fitting_group_size(checkpoint, group_size) or group_size
    recipe = parse_recipe(
        {
            "scheme": "w4a16",
            "method": "gptq",
            "group_size": fitting,
            "calibration": SENSITIVITY.model_dump(),
        }
    )
    planned = plan(checkpoint, recipe, prompts, here)
    ran = run(
        {
            "task": "sensitivity",
            "parent": str(parent),
            "group_size": fitting,
            "groups": groups_of(planned.layers),
            "tokens": tokens_of(parent, prompts, SENSITIVITY),
            "gpu": here.gpu,
        },
        on_progress,
        worker=here.worker,
    )
    return [
        Sensitivity(tuple(each["names"]), each["kl"], each["weights"])
        for each in ran.result["layers"]
    ]


def _assemble(parent: Path, raw: Path, whole: Path) -> None:
    whole.mkdir()
    for path in sorted(parent.iterdir()):
        inherited = path.suffix not in _WEIGHTS and path.name not in _NOT_INHERITED
        if path.is_file() and inherited and not path.name.startswith("."):
            shutil.copyfile(path, whole / path.name)
    for path in sorted(raw.iterdir()):
        if path.suffix == ".safetensors" or path.name in _NOT_INHERITED:
            path.rename(whole / path.name)
            (whole / path.name).chmod(0o644)  # safetensors writes for its owner only
    config = _json(parent / "config.json")
    config["quantization_config"] = _json(raw / "config.json")["quantization_config"]
    (whole / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def _json(path: Path) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(path.read_text())
    return body


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def machine_here() -> Machine:
    """Return the memory that is free, the container's limit considered, and whether a GPU is."""
    return Machine(
        _free_memory(Path("/proc/meminfo"), Path("/sys/fs/cgroup")),
        gpu=Path("/dev/nvidiactl").exists(),
    )


def _free_memory(meminfo: Path, cgroup: Path) -> int:
    found = (
        re.search(r"MemAvailable:\s+(\d+) kB", meminfo.read_text()) if meminfo.exists() else None
    )
    free = int(found[1]) * 1024 if found else 1 << 62  # unknown: the worker will tell
    limit, used = cgroup / "memory.max", cgroup / "memory.current"
    if limit.exists() and used.exists() and (text := limit.read_text().strip()).isdigit():
        free = min(free, max(0, int(text) - int(used.read_text())))
    return free
