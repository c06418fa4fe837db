"""What one replica runs on: devices, and the nodes that they are in."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, WithJsonSchema, model_validator

from penstock.core.hardware import ACCELERATORS, Accelerator
from penstock.core.serving import Part


def _accelerator(name: str) -> str:
    if name not in ACCELERATORS:
        raise ValueError(" | ".join(ACCELERATORS))
    return name


AcceleratorName = Annotated[
    str,
    AfterValidator(_accelerator),
    WithJsonSchema({"type": "string", "enum": list(ACCELERATORS)}),
]

MOST_NODES = 8
"""Of one replica."""


class Hardware(Part):
    """What one replica runs on."""

    accelerator: AcceleratorName = Field("cpu", description="Device of one replica, by name.")
    count: int = Field(1, ge=1, le=64, description="Devices per replica.")
    nodes: int = Field(
        1,
        ge=1,
        le=MOST_NODES,
        description="Nodes per replica, each with an equal part of its devices. Above 1: an "
        "LLMInferenceService with a LeaderWorkerSet, whose pods are stages of one pipeline.",
    )
    mig: str | None = Field(
        None, description="MIG profile of the device, such as 1g.10gb; null: the whole device."
    )
    sharing: Literal["none", "time-slicing", "mps"] = Field(
        "none",
        description="How a cluster shares the device with other pods. time-slicing: in turns, "
        "with no memory of one's own; mps: an equal part of memory and compute.",
    )
    claim: Literal["plugin", "dra"] = Field(
        "plugin",
        description="How a cluster hands devices out. plugin: a device plugin's resources, such "
        "as nvidia.com/gpu; dra: a ResourceClaim (Kubernetes 1.34 and NVIDIA's DRA driver).",
    )
    cpu: str | None = Field(
        None,
        pattern=r"^\d+(\.\d+|m)?$",
        description="CPU of one replica on a cluster, as Kubernetes writes it: 2, 500m; null: 1 "
        "for the CPU engine, 4 beside one device, and 2 per device and 4 more beside several.",
    )
    memory: str | None = Field(
        None,
        pattern=r"^\d+(Ki|Mi|Gi|Ti)$",
        description="Memory of one replica on a cluster: 2Gi; null: 2Gi for the CPU engine, 32Gi "
        "beside one device, and 16Gi for each further one.",
    )

    @property
    def device(self) -> Accelerator:
        """One device, or the part of it that a replica gets."""
        whole = ACCELERATORS[self.accelerator]
        return whole.slice(self.mig) if self.mig else whole

    @property
    def per_node(self) -> int:
        """Devices of a replica in each of its nodes, which are those of one pod."""
        return self.count // self.nodes

    @model_validator(mode="after")
    def _divided(self) -> Hardware:
        known = ACCELERATORS[self.accelerator].mig
        if self.mig is not None and self.mig not in known:
            named = ", ".join(known) or "null: it cannot be divided"
            raise ValueError(f"mig of {self.accelerator}: {named}; found {self.mig}")
        part = f"mig: {self.mig}" if self.mig else f"sharing: {self.sharing}"
        if self.count > 1 and (self.mig or self.sharing != "none"):
            raise ValueError(f"count 1 with {part}: more parts are no faster, and cannot exchange")
        if self.count % self.nodes or (self.nodes > 1 and self.accelerator == "cpu"):
            raise ValueError(
                f"nodes {self.nodes}: each has the same number of devices, and count is "
                f"{self.count} x {self.accelerator}"
            )
        if self.nodes > 1 and self.claim == "dra":
            raise ValueError("claim plugin with nodes above 1")
        if self.mig and self.sharing == "mps":
            raise ValueError("sharing none or time-slicing with mig: NVIDIA shares no part by MPS")
        if self.claim == "dra" and (
            self.sharing != "none" or ACCELERATORS[self.accelerator].vendor != "nvidia"
        ):
            raise ValueError("claim plugin, but for whole NVIDIA devices and parts by MIG")
        return self
