"""Accelerators by name: one table for the spec, for sizing and for precision gates.

Memory and SM version as the vendor's data sheets and CUDA's compute-capability list give them.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Accelerator:
    """What one device can hold and run."""

    name: str
    memory_gib: int
    """Of one device; 0 for `cpu`, which uses the machine's memory."""

    sm: int | None
    """CUDA compute capability without the dot (89 = 8.9); None without CUDA."""


ACCELERATORS: dict[str, Accelerator] = {
    a.name: a
    for a in (
        Accelerator("cpu", 0, None),
        Accelerator("nvidia-a10", 24, 86),
        Accelerator("nvidia-l4", 24, 89),
        Accelerator("nvidia-l40s", 48, 89),
        Accelerator("nvidia-a100-40gb", 40, 80),
        Accelerator("nvidia-a100-80gb", 80, 80),
        Accelerator("nvidia-h100-80gb", 80, 90),
        Accelerator("nvidia-h200-141gb", 141, 90),
        Accelerator("nvidia-b200-180gb", 180, 100),
    )
}
