"""What an inspection says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

ENGINES = ("vllm", "sglang", "tensorrt-llm", "tgi", "huggingface", "cpu")
"""Engines a finding can concern; `triton` reads as `vllm` does."""

ON_TRANSFORMERS_4 = ("tensorrt-llm", "tgi", "huggingface")
"""Engines that may read a checkpoint by transformers 4; TensorRT-LLM 1.2.1 pins 4.57.3."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing in a checkpoint that some engine reads wrongly."""

    severity: Literal["error", "warning"]
    """An error concerns every engine it names; a warning becomes one for an engine it names."""

    code: str
    """A short name that does not change."""

    what: str
    """What is wrong, and what an engine makes of it."""

    where: str
    """File, tensor or field."""

    fix: str
    """The next step."""

    engines: tuple[str, ...] = ENGINES
    """Who reads it wrongly; empty: nobody for certain, but look at it."""

    def __str__(self) -> str:
        return f"{self.where}: {self.what} [{self.code}]"


def error(
    code: str, where: str, what: str, fix: str, *, engines: tuple[str, ...] = ENGINES
) -> Finding:
    """Return a finding that refuses the checkpoint."""
    return Finding("error", code, what, where, fix, engines)


def warning(
    code: str, where: str, what: str, fix: str, *, engines: tuple[str, ...] = ()
) -> Finding:
    """Return a finding that refuses the checkpoint for the engines it names only."""
    return Finding("warning", code, what, where, fix, engines)


def some(names: list[str]) -> str:
    """Return the first name, and how many more there are."""
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
