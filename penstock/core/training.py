"""The section `training` of model.yaml: how the checkpoint of `source` is trained on `data.train`.

The result follows from this, the base checkpoint and the data. null means that the default depends
on the method; what contradicts itself is refused when the document is read.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Literal

from pydantic import Field, model_validator

from penstock.core.serving import Part

LORA_RATE, FULL_RATE = 2e-4, 2e-5
"""Peak learning rates. Source: TRL's documentation, SFTTrainer, "Train adapters with PEFT"."""

EPOCHS = 3.0

Strategy = Literal["torchrun", "deepspeed-zero2", "deepspeed-zero3"]
ModuleName = Annotated[str, Field(pattern=r"^[A-Za-z_]\w*(\.\w+)*$")]


class Adapter(Part):
    """LoRA: small matrices beside the layers are trained, then added to their weights."""

    rank: int = Field(16, ge=1, le=1024, description="Columns of the small matrices.")
    alpha: int = Field(32, ge=1, description="What they add is scaled by alpha divided by rank.")
    dropout: float = Field(
        0.0, ge=0, lt=1, description="Share of their inputs that is dropped while training."
    )
    target_modules: list[ModuleName] | None = Field(
        None,
        min_length=1,
        description="Layers that get them, by the end of their names, such as q_proj; null: every "
        "linear layer but the output.",
    )

    @model_validator(mode="after")
    def _distinct(self) -> Adapter:
        named = self.target_modules or []
        if len(set(named)) != len(named):
            raise ValueError("target_modules that are named once each")
        return self


class Distributed(Part):
    """Many devices, by a TrainJob of Kubeflow Trainer."""

    strategy: Strategy = Field(
        description="torchrun: every device holds the whole model; deepspeed-zero2: gradients and "
        "the optimizer are divided among them; deepspeed-zero3: the weights as well."
    )
    nodes: int = Field(1, ge=1, le=1024, description="Pods, one per node.")
    devices_per_node: int = Field(1, ge=1, le=16, description="Devices of one pod.")
    volume: str = Field(
        pattern=r"^pvc://[a-z0-9][-a-z0-9.]*=/[\w./-]+$",
        description="pvc://CLAIM=/FOLDER: the claim that holds PENSTOCK_HOME, and where it is "
        "mounted; pods of the job read and write there.",
    )
    resource: str | None = Field(
        "nvidia.com/gpu",
        pattern=r"^[a-z0-9][-a-z0-9.]*/[\w.-]+$",
        description="What a device is called on the cluster; null: processes without one.",
    )
    cpu: str = Field("4", pattern=r"^\d+(\.\d+|m)?$", description="CPU of one pod.")
    memory: str = Field("32Gi", pattern=r"^\d+(Ki|Mi|Gi|Ti)$", description="Memory of one pod.")
    runtime: str | None = Field(
        None,
        pattern=r"^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$",
        description="ClusterTrainingRuntime that mounts the volume itself; null: a TrainingRuntime "
        "is written beside the job.",
    )

    @property
    def devices(self) -> int:
        """Devices in all."""
        return self.nodes * self.devices_per_node

    @property
    def claim(self) -> tuple[str, str]:
        """Claim, and where it is mounted."""
        name, _, folder = self.volume.removeprefix("pvc://").partition("=")
        return name, folder

    @model_validator(mode="after")
    def _several(self) -> Distributed:
        if self.devices < 2:
            raise ValueError(
                "nodes and devices_per_node of 2 devices or more; one needs no distributed"
            )
        return self


class Training(Part):
    """How it is trained."""

    method: Literal["lora", "full"] = Field(
        "lora", description="lora: adapters, merged at the end; full: every weight."
    )
    lora: Adapter | None = Field(
        None, description="Of method lora; null: rank 16 on every linear layer."
    )
    epochs: float | None = Field(
        None, gt=0, le=1000, description="Times that every row is seen; null: 3, or as steps says."
    )
    steps: int | None = Field(None, ge=1, description="Optimizer steps, instead of epochs.")
    batch_rows: int = Field(8, ge=1, le=4096, description="Rows computed at once, per device.")
    gradient_accumulation: int = Field(
        1, ge=1, le=4096, description="Batches per optimizer step, per device."
    )
    learning_rate: float | None = Field(
        None,
        gt=0,
        le=1,
        description="Peak; cosine to zero after warm-up. null: 2e-4 for lora, 2e-5 for full.",
    )
    warmup_share: float = Field(
        0.03, ge=0, lt=1, description="Share of the steps in which the rate rises."
    )
    weight_decay: float = Field(0.0, ge=0, le=1, description="Of AdamW.")
    max_gradient_norm: float = Field(1.0, gt=0, description="Longer gradients are cut to this.")
    seed: int = Field(
        20260701, ge=0, lt=2**32, description="Of adapters, dropout, and the order of rows."
    )
    max_length: int | None = Field(
        None,
        ge=8,
        description="Tokens of the longest row, question and answer; longer ones are refused, "
        "never cut. null: the model's context.",
    )
    held_out_share: float = Field(
        0.05,
        ge=0,
        le=0.5,
        description="Share of the rows that is not trained on: the loss on them tells learning "
        "from learning by heart. Which ones follows from their ids.",
    )
    checkpoint_every_steps: int = Field(
        100, ge=1, description="Steps after which an interrupted training resumes at the latest."
    )
    gradient_checkpointing: bool = Field(False, description="Less memory, about a third more time.")
    distributed: Distributed | None = Field(
        None, description="null: in the step itself, on its one device."
    )

    @property
    def adapter(self) -> Adapter | None:
        """The adapter that is trained; None for method full."""
        return (self.lora or Adapter()) if self.method == "lora" else None

    @property
    def rate(self) -> float:
        """Peak learning rate: the one that is named, or the method's."""
        return self.learning_rate or (LORA_RATE if self.method == "lora" else FULL_RATE)

    @property
    def passes(self) -> float | None:
        """Epochs: as named, or the default; None where steps are named."""
        return None if self.steps else self.epochs or EPOCHS

    @property
    def digest(self) -> str:
        """SHA-256 of what decides the result: how often it is saved does not."""
        body = self.model_dump_json(exclude={"checkpoint_every_steps"})
        return f"sha256:{hashlib.sha256(body.encode()).hexdigest()}"

    @model_validator(mode="after")
    def _consistent(self) -> Training:
        if self.method == "full" and self.lora is not None:
            raise ValueError("lora with method lora; method full trains every weight")
        if self.epochs is not None and self.steps is not None:
            raise ValueError("epochs or steps, not both")
        return self
