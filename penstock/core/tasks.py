"""How long the tasks of a pipeline may take, and how often they are tried again."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from penstock.core.serving import Part

Task = Literal[
    "pull", "scan", "check_data", "train", "quantize", "evaluate", "register", "deploy", "rollout"
]
MOST_RETRIES = 2
"""How often a pod that failed is made anew: steps look at what is there, so a lost node costs what
was not done yet. The back end cannot tell a lost node from a refusal, which is then told thrice.
Pipelines are compiled with it; a spec comes later, and can only ask for less."""


class TaskLimits(Part):
    """Of one task."""

    timeout_s: float | None = Field(
        None,
        gt=0,
        description="Longest time of one try, in seconds; null: the pipeline's own.",
    )
    retries: int | None = Field(
        None,
        ge=0,
        le=MOST_RETRIES,
        description="How often a cluster may try again what failed or was lost; null: twice. This "
        "machine tries nothing again.",
    )
