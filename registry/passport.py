"""The passport of a model version: where it comes from, what was checked, and how good it is."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Made(_Part):
    """Who made it, and when."""

    penstock: str = Field(description="Version of Penstock.")
    at: str = Field(description="UTC, ISO 8601.")
    run_id: str = Field(description="The pipeline run.")


class Decision(_Part):
    """A gate that was passed on the way."""

    step: str
    outcome: str
    reason: str


class Precision(_Part):
    """How the weights came to their precision."""

    outcome: Literal["skipped", "kept", "accept"] = Field(
        description="skipped: nothing was tried; kept: nothing that was tried may replace it; "
        "accept: this checkpoint was made from its parent."
    )
    reason: str
    recipe: dict[str, Any] | None = Field(None, description="How it was made from its parent.")
    parent_root: str = Field(description="Digest of the checkpoint as it came.")


class Inputs(_Part):
    """What a version was made from, where it was trained: what may become new."""

    base: str = Field(description="The checkpoint it started from, pinned to a commit or digest.")
    data: dict[str, str] = Field(description="Fingerprint per data set.")
    strategy: str = Field(description="Digest of the spec's section training.")
    code: str = Field(description="Version of Penstock.")
    image: str = Field(description="Image that trains, by digest where it has one.")

    @property
    def digest(self) -> str:
        """SHA-256 of all of it: the same inputs need not be tried twice."""
        body = json.dumps(self.model_dump(), sort_keys=True)
        return f"sha256:{hashlib.sha256(body.encode()).hexdigest()}"


class Trained(_Part):
    """What its weights were trained from, and how."""

    base_root: str = Field(description="Digest of the checkpoint that training started from.")
    data: str = Field(description="Fingerprint of the training set.")
    strategy: dict[str, Any] = Field(description="Section `training` of the spec.")
    rows: int = Field(description="Rows trained on.")
    held_out: int = Field(description="Rows of the training set that were not.")
    steps: int = Field(description="Optimizer steps.")
    loss: float = Field(description="Per token of the answers, in nats; mean over the last steps.")
    eval_loss: float | None = Field(None, description="On the rows held out.")
    device: str = Field(description="What computed it.")
    libraries: dict[str, str] = Field(description="Their versions.")
    tracking_run: str = Field(description="MLflow run that holds its curves.")


class Passport(_Part):
    """Everything that is known about a version. `Passport.model_validate(p.model_dump()) == p`."""

    schema_version: Literal["penstock.passport/v1"] = "penstock.passport/v1"
    name: str = Field(description="Registered model.")
    source: str = Field(description="Reference pinned to a commit.")
    root: str = Field(description="Digest of the whole checkpoint.")
    files: dict[str, str] = Field(description="Digest per file.")
    licence: str = Field("", description="As the model card states it.")
    data: dict[str, str] = Field(description="Fingerprint per data set.")
    runtime_args: list[str] = Field([], description="What the engine is told beside the weights.")
    precision: Precision | None = Field(None, description="How its weights were quantized.")
    inputs: Inputs | None = Field(None, description="What it was trained from, where it was.")
    training: Trained | None = Field(None, description="What it was trained from, where it was.")
    evaluation: dict[str, Any] = Field(description="Scores with their intervals.")
    decisions: list[Decision]
    made: Made


def schema_text() -> str:
    """Return the JSON Schema as it is checked in."""
    return json.dumps(Passport.model_json_schema(), indent=1) + "\n"
