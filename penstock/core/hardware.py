"""Accelerators by name: one table for the spec, for sizing and for precision gates.

Memory, bandwidth, arithmetic and SM version as the vendor's data sheets and CUDA's
compute-capability list give them; dense arithmetic, without sparsity. MIG profiles: NVIDIA MIG User
Guide, "Supported MIG Profiles", read 2026-11-28.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

_MIG_SHARE = 0.94
"""Of the memory that a profile's name says, what its device has at least: 9,728 MiB of 1g.10gb and
4,864 MiB of 1g.5gb (MIG User Guide) are 95 %; the last per cent is rounding in the names."""

_MIG_ENGINES = 7
"""Compute slices of a whole device; the number before `g` counts them."""


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

    mig: tuple[str, ...] = ()
    """Profiles that it can be divided into; none where it cannot be."""

    @property
    def vendor(self) -> str:
        """Who made it: `nvidia`, `amd`; `cpu` for no device."""
        return self.name.partition("-")[0]

    @property
    def family(self) -> str:
        """The word by which every spelling of its name knows it: `H100`."""
        return self.name.split("-")[1].upper() if "-" in self.name else ""

    def slice(self, profile: str) -> Accelerator:
        """Return what one MIG device of a profile can hold and run."""
        engines, _, memory = profile.partition("g.")
        gib = int(memory.removesuffix("gb"))
        share = int(engines) / _MIG_ENGINES
        return replace(
            self,
            memory_gib=gib,
            visible_gib=min(gib * _MIG_SHARE, self.visible_gib),
            bandwidth=self.bandwidth * min(gib / self.memory_gib, 1.0),
            bf16_flops=self.bf16_flops * share,
            fp8_flops=self.fp8_flops * share,
            nvlink=1,
        )


_80GB = ("1g.10gb", "1g.20gb", "2g.20gb", "3g.40gb", "4g.40gb", "7g.80gb")

ACCELERATORS: dict[str, Accelerator] = {
    a.name: a
    for a in (
        Accelerator("cpu", 0, None),
        Accelerator("nvidia-a10", 24, 86, 22.03, 600e9, 125e12),
        Accelerator("nvidia-l4", 24, 89, 22.03, 300e9, 121e12, 242e12),
        Accelerator("nvidia-l40s", 48, 89, 44.4, 864e9, 362e12, 733e12),
        Accelerator(
            *("nvidia-a100-40gb", 40, 80, 39.49, 1.555e12, 312e12),
            nvlink=8,
            mig=("1g.5gb", "1g.10gb", "2g.10gb", "3g.20gb", "4g.20gb", "7g.40gb"),
        ),
        Accelerator("nvidia-a100-80gb", 80, 80, 79.25, 2.039e12, 312e12, nvlink=8, mig=_80GB),
        Accelerator("nvidia-h100-80gb", 80, 90, 79.11, 3.35e12, 989e12, 1978e12, 8, _80GB),
        Accelerator(
            *("nvidia-h200-141gb", 141, 90, 139.4, 4.8e12, 989e12, 1978e12),
            nvlink=8,
            mig=("1g.18gb", "1g.35gb", "2g.35gb", "3g.71gb", "4g.71gb", "7g.141gb"),
        ),
        Accelerator(
            *("nvidia-b200-180gb", 180, 100, 178.35, 7.7e12, 2250e12, 4500e12),
            nvlink=8,
            mig=("1g.23gb", "1g.45gb", "2g.45gb", "3g.90gb", "4g.90gb", "7g.180gb"),
        ),
        # scheduled only: the precision matrix and sizing speak of CUDA (docs/gpus.md)
        Accelerator("amd-mi300x-192gb", 192, None),
        Accelerator("amd-mi325x-256gb", 256, None),
    )
}
