"""Which recipes to try, and which result to serve; pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from penstock.core import matrix
from penstock.core.matrix_rows import ARTIFACTS
from penstock.core.recipes import DEFAULTS, Recipe


@dataclass(frozen=True, slots=True)
class Target:
    """What a checkpoint is made for."""

    engine: str
    """A name of the matrix: `vllm`, `cpu`, …"""

    gpu: str
    """A name that `gpus.sm_of` knows, or `cpu`."""

    version: str = ""
    """Of the engine; empty: the one that the matrix assumes."""

    memory_bytes: int = 0
    """Of all devices of a replica; 0: not limited by them."""

    def __str__(self) -> str:
        """Return it in words."""
        return f"the engine {self.engine}" + ("" if self.gpu == "cpu" else f" on {self.gpu}")


@dataclass(frozen=True, slots=True)
class Impossible:
    """A recipe whose result could not be run there."""

    recipe: Recipe
    reason: str
    """Why, and what could be."""


def recipes_for(
    wanted: Literal["auto"] | Sequence[Recipe], target: Target, weights_bytes: int = 0
) -> tuple[list[Recipe], list[Impossible]]:
    """Return what to make, and what need not be tried.

    `auto` takes one recipe per width of weights, the first that the engine computes natively
    there: what is only emulated or unpacked saves nothing.

    Args:
        wanted: From the spec.
        target: Where the result must run.
        weights_bytes: Of the checkpoint in 16 bits.
    """
    possible, impossible = [], []
    for recipe in _natively(target) if wanted == "auto" else wanted:
        reason = _why_not(recipe, target) or _too_large(recipe, target, weights_bytes)
        if reason:
            impossible.append(Impossible(recipe, reason))
        else:
            possible.append(recipe)
    return possible, impossible


def smallest(tried: Iterable[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """Return the smallest result that was accepted; of two as small, the better one."""
    accepted = [each for each in tried if each["outcome"] == "accept"]
    return min(accepted, key=lambda each: (each["size_bytes"], -each["score"]), default=None)


def _natively(target: Target) -> list[Recipe]:
    found: dict[int, Recipe] = {}
    for name in matrix.possible(target.engine, target.version, target.gpu):
        bits = ARTIFACTS[name].bits
        if name in DEFAULTS and bits < 16 and _fit(name, target).how == "yes":
            found.setdefault(bits, DEFAULTS[name])
    return list(found.values())


def _why_not(recipe: Recipe, target: Target) -> str:
    for name in recipe.artifacts:
        fit = _fit(name, target)
        if not fit.ok:
            nearest = f"; nearest: {fit.nearest}" if fit.nearest else ""
            return f"{name} does not run in {target}: {fit.reason}{nearest} ({fit.source})"
    return ""


def _too_large(recipe: Recipe, target: Target, weights_bytes: int) -> str:
    """Return why the weights alone do not fit; what else a replica needs, sizing knows."""
    needed = int(weights_bytes * recipe.bits / 16)
    if not target.memory_bytes or needed <= target.memory_bytes:
        return ""
    return (
        f"{recipe.label} leaves about {needed / 1e9:.0f} GB of weights, {target} has "
        f"{target.memory_bytes / 1e9:.0f} GB of memory; nearest: fewer bits, or more devices"
    )


def _fit(name: str, target: Target) -> matrix.Fit:
    return matrix.judge(name, target.engine, target.version, target.gpu)
