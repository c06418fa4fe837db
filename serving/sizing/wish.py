"""What a person asks for, and what is there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from penstock.core.hardware import Accelerator


@dataclass(frozen=True, slots=True)
class Load:
    """Requests that arrive."""

    per_s: float
    prompt: int
    """Tokens of a prompt."""

    answer: int
    """Tokens of an answer."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What a model must be able to do; None and `auto` leave it to the plan."""

    context: int | None = None
    """Tokens of one sequence."""

    concurrency: int | None = None
    """Sequences at once, per replica."""

    tensor_parallel: int | None = None
    pipeline_parallel: int | None = None
    kv_cache: Literal["auto", "fp8"] = "auto"
    memory_share: float | None = None
    load: Load | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """What one replica runs on."""

    gpu: Accelerator
    """One device, or the part of it that a replica gets."""

    count: int = 1
    engine: str = "vllm"
    mig: str = ""
    """Profile of that part; empty for whole devices."""

    nodes: int = 1
    """Each with an equal part of the devices."""

    @property
    def per_node(self) -> int:
        """Devices of one node."""
        return self.count // self.nodes

    def __str__(self) -> str:
        where = f" in {self.nodes} nodes" if self.nodes > 1 else ""
        return f"{self.count} x {self.gpu.name}{f' ({self.mig})' if self.mig else ''}{where}"


@dataclass(frozen=True, slots=True)
class Option:
    """A precision that may be served."""

    name: str
    bits: float = 0.0
    """Per weight, scales included; 0: the checkpoint as it came."""

    reason: str = ""
    """Why it may be served there, from the matrix."""

    @property
    def as_it_came(self) -> bool:
        """Whether nothing is made of the checkpoint."""
        return self.bits == 0


@dataclass(frozen=True, slots=True)
class Rejected:
    """What was looked at and not taken."""

    what: str
    why: str


@dataclass(frozen=True, slots=True)
class Change:
    """A change to the request that would make it work."""

    what: str
    """As it would stand in model.yaml."""

    then: str
    """What would be served with it."""
