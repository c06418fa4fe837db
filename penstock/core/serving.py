"""The section `serving` of model.yaml: how an engine serves, in words that no engine owns.

null always means the engine's own default. What an engine cannot do is refused when its arguments
are written (`serving.runtimes.launch`), with the nearest engine that can.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


class Part(BaseModel):
    """A part of model.yaml: frozen, and unknown fields are mistakes."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


def _inside(path: str) -> str:
    pure = PurePosixPath(path)
    if pure.is_absolute() or ".." in pure.parts or not pure.parts or " " in path:
        raise ValueError("a path inside the checkpoint, such as draft or adapters/law")
    return str(pure)


Inside = Annotated[str, AfterValidator(_inside)]
"""A file or folder of the checkpoint: it is fetched and verified with the rest."""


class Draft(Part):
    """A small model of the same tokenizer guesses; the large one checks."""

    kind: Literal["draft"] = Field(description="A small model guesses.")
    model: Inside = Field(description="Folder of the checkpoint with the small model.")
    tokens: int = Field(4, ge=1, le=16, description="Tokens guessed at once.")


class Ngram(Part):
    """What followed the same words earlier is the guess; needs no second model."""

    kind: Literal["ngram"] = Field(description="The text so far guesses.")
    tokens: int = Field(4, ge=1, le=16, description="Tokens guessed at once.")


class Eagle(Part):
    """A head on the model's own hidden states guesses."""

    kind: Literal["eagle"] = Field(description="A head trained for this model guesses.")
    model: Inside = Field(description="Folder of the checkpoint with the head.")
    tokens: int = Field(3, ge=1, le=16, description="Tokens guessed at once.")
    version: Literal[1, 3] = Field(3, description="1: EAGLE and EAGLE-2; 3: EAGLE-3.")


Speculative = Annotated[Draft | Ngram | Eagle, Field(discriminator="kind")]
SPECULATIVE: dict[str, type[Part]] = {"draft": Draft, "ngram": Ngram, "eagle": Eagle}
"""Kind → what may stand beside it."""


class Lora(Part):
    """Adapters that are served beside the model, each under a name of its own."""

    adapters: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w.-]*$")], Inside] = Field(
        min_length=1,
        description="Name that clients ask for, letters, digits, dots and dashes → folder of the "
        "checkpoint.",
    )
    max_rank: int = Field(16, ge=1, le=512, description="Largest rank of any of them.")


class Serving(Part):
    """How the engine serves."""

    context: int | None = Field(
        None, ge=16, description="Tokens of one prompt and its answer together."
    )
    concurrency: int | None = Field(
        None, ge=1, description="Requests computed at once, per replica; others wait."
    )
    max_queued: int | None = Field(
        None, ge=1, description="Requests that may wait; more are refused at once."
    )
    max_answer_tokens: int | None = Field(
        None, ge=1, description="Longest answer that any request may ask for."
    )
    tensor_parallel: int | None = Field(
        None,
        ge=1,
        le=16,
        description="Devices that every layer is split over; null: hardware.count divided by "
        "pipeline_parallel.",
    )
    pipeline_parallel: int | None = Field(
        None, ge=1, le=16, description="Stages the layers are divided into; null: 1."
    )
    kv_cache: Literal["auto", "fp8"] = Field(
        "auto", description="Type of cached keys and values; auto: the model's."
    )
    memory_share: float | None = Field(
        None, gt=0, lt=1, description="Share of a device's memory that the engine may use."
    )
    chunked_prefill: bool | None = Field(
        None, description="Long prompts are computed in pieces, between other requests' tokens."
    )
    prefix_caching: bool | None = Field(
        None, description="Prompts that begin alike share what was computed."
    )
    speculative: Speculative | None = Field(
        None, description="Tokens are guessed and checked together, by kind draft, ngram or eagle."
    )
    chat_template: Inside | None = Field(
        None, description="File of the checkpoint with another chat template."
    )
    tool_parser: str | None = Field(
        None, pattern=r"^[\w.-]+$", description="How tool calls are read, as the engine names it."
    )
    reasoning_parser: str | None = Field(
        None, pattern=r"^[\w.-]+$", description="How reasoning is read, as the engine names it."
    )
    lora: Lora | None = Field(None, description="Adapters served beside the model.")
