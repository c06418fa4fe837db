"""What a `model.yaml` asks to be built for TensorRT-LLM, or why it cannot be. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from components.quantization.choice import Target, recipes_for
from components.trtllm.model import ENGINE, SCHEME_OF, RuntimeImage, Shape
from penstock.core import matrix
from penstock.core.errors import ConfigurationError, RecipeImpossible
from penstock.core.hardware import ACCELERATORS, Accelerator
from penstock.core.recipes import DEFAULTS, Recipe
from penstock.core.spec import AS_IT_CAME, ModelSpec

_FIELDS = {
    "--precision": "precision:",
    "--strategy": "engine.strategy",
    "--image": "engine.image",
    "--max-input": "engine.max_input_len",
    "--max-seq": "engine.max_seq_len",
    "--max-num-tokens": "engine.max_num_tokens",
    "--tp": "tensor parallelism (hardware.count / engine.pipeline_parallel)",
    "--pp": "engine.pipeline_parallel",
}
_OPTION = re.compile("|".join(rf"{words}(?![\w-])" for words in _FIELDS))


@dataclass(frozen=True, slots=True)
class Asked:
    """What a spec asks for, before there is a checkpoint."""

    recipe: Recipe | None
    """None serves the weights as they came."""

    shape: Shape
    image: RuntimeImage
    gpu: Accelerator


def asked(model: ModelSpec) -> Asked:
    """Return what a spec asks for.

    Raises:
        ConfigurationError: Another runtime, no GPU, or GPUs that the pipeline stages do not divide.
        RecipeImpossible: The precision cannot be run there, or is not made here.
    """
    gpu, engine, count = (
        ACCELERATORS[model.hardware.accelerator],
        model.engine,
        model.hardware.count,
    )
    if model.runtime not in ("auto", ENGINE):
        raise ConfigurationError(
            f"runtime: {model.runtime}; what is built here runs in {ENGINE} only",
            hint=f"runtime: {ENGINE}",
        )
    if gpu.sm is None:
        raise ConfigurationError(
            f"hardware.accelerator: {gpu.name}; {ENGINE} needs one of "
            + ", ".join(a.name for a in ACCELERATORS.values() if a.sm),
            hint="name the GPU that it shall be served on",
        )
    if count % engine.pipeline_parallel:
        raise ConfigurationError(
            f"engine.pipeline_parallel: {engine.pipeline_parallel} does not divide "
            f"hardware.count {count}",
            hint="every pipeline stage has as many GPUs",
        )
    image = RuntimeImage.parse(engine.image)
    shape = Shape(
        tp=count // engine.pipeline_parallel,
        pp=engine.pipeline_parallel,
        max_batch_size=engine.max_batch_size,
        max_input_len=engine.max_input_len,
        max_seq_len=engine.max_seq_len,
        max_num_tokens=engine.max_num_tokens,
    )
    return Asked(recipe_for(model.precision, gpu.name, image.tag), shape, image, gpu)


def recipe_for(wanted: Literal["auto"] | Sequence[Recipe], gpu: str, version: str) -> Recipe | None:
    """Return the one recipe to build; None for the weights as they came.

    Args:
        wanted: The spec's `precision`; `auto` takes what the matrix would try first of ModelOpt's.
        gpu: Name of the GPU.
        version: Of TensorRT-LLM.

    Raises:
        RecipeImpossible: It cannot be run there, it is not ModelOpt's, or there are several.
    """
    if wanted == "auto":
        fits = matrix.possible(ENGINE, version, gpu)  # native arithmetic first
        return next((DEFAULTS[name] for name in fits if name in SCHEME_OF), None)
    runs, impossible = recipes_for(wanted, Target(ENGINE, gpu, version))
    if impossible:
        raise RecipeImpossible(
            "precision: " + "; ".join(each.reason for each in impossible),
            hint="name what runs there, or precision: auto",
        )
    foreign = [recipe.label for recipe in runs if recipe.name not in SCHEME_OF]
    if foreign or len(runs) > 1:
        named = ", ".join(foreign or [recipe.label for recipe in runs])
        why = "not made by ModelOpt" if foreign else "a build takes one recipe"
        raise RecipeImpossible(
            f"precision: {named}: {why}", hint=f"one of {', '.join(SCHEME_OF)}, or {AS_IT_CAME}"
        )
    return runs[0] if runs else None


def in_words_of_the_spec(hint: str) -> str:
    """Return a hint to who types `penstock engine build` as one to who writes model.yaml."""
    return _OPTION.sub(lambda found: _FIELDS[found[0]], hint)
