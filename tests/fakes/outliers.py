"""A checkpoint that computes exactly what another does, and that four bits ruin.

Some channels between `up_proj` and `down_proj` are scaled by a power of two, and back: no weight
loses a bit, but in `down_proj` large and small weights now share groups, as they do in models with
outlier channels (Dettmers et al., LLM.int8(), NeurIPS 2022).
"""

from __future__ import annotations

import shutil
from pathlib import Path

EVERY, FACTOR = 16, 32.0


def with_outliers(parent: Path, folder: Path) -> Path:
    """Write the checkpoint and return its folder."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(parent, folder)
    path = folder / "model.safetensors"
    path.chmod(0o644)
    weights = load_file(path)
    for name, values in weights.items():
        if name.endswith("up_proj.weight"):
            values[::EVERY] /= FACTOR
        elif name.endswith("down_proj.weight"):
            values[:, ::EVERY] *= FACTOR
    save_file(weights, path, metadata={"format": "pt"})
    return folder
