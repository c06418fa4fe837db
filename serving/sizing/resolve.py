"""What `runtime: auto` and `precision: auto` mean for a checkpoint on a GPU, and why."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from penstock.core import matrix
from penstock.core.matrix_rows import ARTIFACTS
from penstock.core.recipes import DEFAULTS, Recipe
from serving.sizing.wish import Option, Rejected

ENGINES = ("vllm", "sglang", "tensorrt-llm")
"""In the order in which `auto` asks them."""


@dataclass(frozen=True, slots=True)
class Engine:
    """What serves, and why."""

    name: str
    reason: str
    rejected: tuple[Rejected, ...] = ()
    ok: bool = True
    """Whether it runs the checkpoint as it came."""


def engine_for(asked: str, artifact: str, gpu: str) -> Engine:
    """Return what serves a checkpoint.

    Args:
        asked: `runtime` of model.yaml.
        artifact: Format of the checkpoint.
        gpu: Accelerator, by name.
    """
    if gpu == "cpu" or asked == "cpu":
        return Engine("cpu", "no GPU: Penstock's CPU engine, which computes in float32")
    if artifact not in ARTIFACTS:
        name = ENGINES[0] if asked == "auto" else asked
        told = f"the matrix does not know {artifact}: whether {name} runs it on {gpu} is not said"
        return Engine(name, told)
    names = ENGINES if asked == "auto" else (asked,)
    rejected: list[Rejected] = []
    for name in names:
        fit = matrix.judge(artifact, name, "", gpu)
        if fit.ok:
            return Engine(name, f"runs {artifact} on {gpu}: {fit.reason}", tuple(rejected))
        rejected.append(Rejected(f"runtime {name}", f"{artifact} on {gpu}: {fit.reason}"))
    return Engine(names[0], rejected[0].why, tuple(rejected), ok=False)


def options_for(
    engine: Engine, artifact: str, gpu: str, wanted: Sequence[Recipe] | None
) -> tuple[list[Option], list[Option]]:
    """Return the precisions that may be served, the preferred one first, and what else would run.

    A checkpoint that was quantized already is served as it came. Otherwise `auto` prefers the
    checkpoint as it came, which loses nothing, then more bits to fewer; recipes that were named
    come first, and what evaluation refuses is served as it came.

    Args:
        engine: What serves.
        artifact: Format of the checkpoint.
        gpu: Accelerator, by name.
        wanted: Recipes that can be made for the engine; None for `auto`.
    """
    came = [Option(artifact, reason="as it came, which loses nothing")] if engine.ok else []
    if artifact != "bf16":
        return came, []
    listed = sorted(_possible(engine.name, gpu), key=lambda each: -each.bits)
    if wanted is None:
        natively = [each for each in listed if "native" in each.reason]
        return [*came, *natively], [each for each in listed if each not in natively]
    named = [_option(recipe, engine.name, gpu) for recipe in wanted]
    known = {each.name for each in named}
    return [*named, *came], [each for each in listed if each.name not in known]


def _possible(engine: str, gpu: str) -> Iterable[Option]:
    """Yield one recipe per width, the one most worth trying, of those that run there."""
    seen: set[int] = set()
    for name in matrix.possible(engine, "", gpu):
        bits = ARTIFACTS[name].bits
        if name in DEFAULTS and 0 < bits < 16 and bits not in seen:
            seen.add(bits)
            yield _option(DEFAULTS[name], engine, gpu)


def _option(recipe: Recipe, engine: str, gpu: str) -> Option:
    fit = matrix.judge(recipe.artifacts[0], engine, "", gpu)
    how = "computed natively" if fit.how == "yes" else f"as a {fit.how}"
    return Option(recipe.name, recipe.bits, f"{how} by {engine} on {gpu}: {fit.reason}")
