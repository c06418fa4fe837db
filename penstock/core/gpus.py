"""From the name of a GPU to its architecture, whoever wrote the name.

`nvidia-smi`, the node label `nvidia.com/gpu.product` and `hardware.accelerator` spell the same GPU
in three ways; what they share is the model's name as whole words. Source of the numbers: NVIDIA,
"CUDA GPU Compute Capability".
"""

from __future__ import annotations

import re

from penstock.core.errors import ConfigurationError

CPU = 0
"""What stands for no GPU, where an SM version stands otherwise."""

FAMILIES: dict[str, int] = {
    "V100": 70,
    "T4": 75,
    "A100": 80,
    "A800": 80,
    "A30": 80,
    "A10": 86,
    "A10G": 86,
    "A40": 86,
    "RTX A6000": 86,
    "RTX 3090": 86,
    "L4": 89,
    "L20": 89,
    "L40": 89,
    "L40S": 89,
    "RTX 6000 Ada": 89,
    "RTX 4090": 89,
    "H100": 90,
    "H200": 90,
    "H800": 90,
    "H20": 90,
    "GH200": 90,
    "B200": 100,
    "GB200": 100,
    "B300": 103,
    "GB300": 103,
    "RTX PRO 6000": 120,
    "RTX 5090": 120,
    "GB10": 121,
}
"""Name → compute capability without the dot (89 = 8.9)."""


def sm_of(gpu: str) -> int:
    """Return the SM version of a GPU by any of its names; `CPU` for `cpu`.

    Args:
        gpu: `cpu`, `nvidia-l40s`, `NVIDIA-A100-SXM4-80GB`, `NVIDIA H100 80GB HBM3`, ...

    Raises:
        ConfigurationError: No known GPU has that name.
    """
    if gpu == "cpu":
        return CPU
    words = f" {' '.join(re.split(r'[^A-Z0-9]+', gpu.upper()))} "
    # the longest name wins: "RTX PRO 6000" is not "RTX 6000"
    for family in sorted(FAMILIES, key=len, reverse=True):
        if f" {family.upper()} " in words:
            return FAMILIES[family]
    raise ConfigurationError(
        f"{gpu!r} is no GPU whose architecture is known; known: cpu, {', '.join(FAMILIES)}",
        hint="name it as nvidia-smi does; a new one goes into penstock/core/gpus.py",
    )
