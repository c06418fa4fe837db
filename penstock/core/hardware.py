"""Accelerators by name: one table for the spec, for sizing and for precision gates.

Memory, bandwidth, arithmetic and SM version as the vendor's data sheets and CUDA's
compute-capability list give them; dense arithmetic, without sparsity.
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

    visible_gib: float = 0.0
    """What CUDA lets a process see of it: ECC and the driver keep some. Read in torch's messages:
    A100 79.25 and 39.49, H100 79.11 (vllm#27508), L40S 44.42 (Step-Video-T2V#8), L4 22.03
    (evo2#190), B200 178.35 (unsloth#3411). H200: nvidia-smi's 143,771 MiB less what an H100 keeps;
    A10: the share that an L4 shows."""

    bandwidth: float = 0.0
    """Of the memory, bytes per second."""

    bf16_flops: float = 0.0
    fp8_flops: float = 0.0
    """0 where there is no FP8 arithmetic."""

    nvlink: int = 1
    """Devices of one node that NVLink joins; 1: they meet over PCIe."""


ACCELERATORS: dict[str, Accelerator] = {
    a.name: a
    for a in (
        Accelerator("cpu", 0, None),
        Accelerator("nvidia-a10", 24, 86, 22.03, 600e9, 125e12),
        Accelerator("nvidia-l4", 24, 89, 22.03, 300e9, 121e12, 242e12),
        Accelerator("nvidia-l40s", 48, 89, 44.4, 864e9, 362e12, 733e12),
        Accelerator("nvidia-a100-40gb", 40, 80, 39.49, 1.555e12, 312e12, nvlink=8),
        Accelerator("nvidia-a100-80gb", 80, 80, 79.25, 2.039e12, 312e12, nvlink=8),
        Accelerator("nvidia-h100-80gb", 80, 90, 79.11, 3.35e12, 989e12, 1978e12, nvlink=8),
        Accelerator("nvidia-h200-141gb", 141, 90, 139.4, 4.8e12, 989e12, 1978e12, nvlink=8),
        Accelerator("nvidia-b200-180gb", 180, 100, 178.35, 7.7e12, 2250e12, 4500e12, nvlink=8),
    )
}
