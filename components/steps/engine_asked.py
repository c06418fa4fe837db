"""What a `model.yaml` asks to be built for TensorRT-LLM, or why it cannot be. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from components.quantization.choice import Target, recipes_for
from components.trtllm.model import Recipe, RuntimeImage, Scheme, Shape
from penstock.core import matrix, recipes
from penstock.core.errors import ConfigurationError, RecipeImpossible
from penstock.core.hardware import ACCELERATORS, Accelerator
from penstock.core.spec import ModelSpec

ENGINE = "tensorrt-llm"
_SCHEMES: dict[str, Scheme] = {
    "modelopt-fp8": "fp8",
    "modelopt-int4-awq": "int4_awq",
    "modelopt-w4a8-awq": "w4a8_awq",
    "modelopt-nvfp4": "nvfp4",
}
_FIELDS = {
    "--scheme none": "precision: bf16",
    **{f"--scheme {scheme}": f"precision: {name}" for name, scheme in _SCHEMES.items()},
    "--scheme": "precision",
    "--strategy": "engine.strategy",
    "--image": "engine.image",
    "--max-input": "engine.max_input_len",
    "--max-seq": "engine.max_seq_len",
    "--max-num-tokens": "engine.max_num_tokens",
    "--tp": "tensor parallelism (hardware.count / engine.pipeline_parallel)",
    "--pp": "engine.pipeline_parallel",
    "--group-size": "group_size of the recipe",
}
_OPTION = re.compile("|".join(rf"{words}(?![\w-])" for words in _FIELDS))


@dataclass(frozen=True, slots=True)
class Asked:
    """What a spec asks for, before there is a checkpoint."""

    recipe: recipes.Recipe | None
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


def recipe_for(
    wanted: Literal["auto"] | Sequence[recipes.Recipe], gpu: str, version: str
) -> recipes.Recipe | None:
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
        return next((recipes.DEFAULTS[name] for name in fits if name in _SCHEMES), None)
    runs, impossible = recipes_for(wanted, Target(ENGINE, gpu, version))
    if impossible:
        raise RecipeImpossible(
            "precision: " + "; ".join(each.reason for each in impossible),
            hint="name what runs there, or precision: auto",
        )
    foreign = [recipe.label for recipe in runs if recipe.name not in _SCHEMES]
    if foreign or len(runs) > 1:
        named = ", ".join(foreign or [recipe.label for recipe in runs])
        why = "not made by ModelOpt" if foreign else "a build takes one recipe"
        raise RecipeImpossible(
            f"precision: {named}: {why}", hint=f"one of {', '.join(_SCHEMES)}, or bf16"
        )
    return runs[0] if runs else None


def trtllm_recipe(recipe: recipes.Recipe | None, calibration: str) -> Recipe:
    """Return a recipe as quantize.py takes it.

    Args:
        recipe: Of the spec; None quantizes nothing.
        calibration: Folder with the prompts; empty for the data set that is quantize.py's default.

    Raises:
        RecipeImpossible: It says something that quantize.py has no option for.
    """
    if recipe is None:
        return Recipe()
    calibrated, default = getattr(recipe, "calibration", None), recipes.Calibration()
    if recipe.ignore != recipes.DEFAULTS[recipe.name].ignore:
        raise RecipeImpossible(
            f"{recipe.label}: quantize.py has no option for layers to ignore",
            hint="leave ignore out",
        )
    if calibrated and calibrated.length != default.length:
        raise RecipeImpossible(
            f"{recipe.label}: prompts of {calibrated.length} tokens; quantize.py is run with its "
            f"own {default.length}",
            hint="leave calibration.length out",
        )
    base = Recipe()
    return Recipe(
        _SCHEMES[recipe.name],
        group_size=getattr(recipe, "group_size", base.group_size),
        kv_dtype="fp8" if getattr(recipe, "kv_cache", "none") == "fp8" else "auto",
        calibration=calibration or base.calibration,
        samples=(calibrated or default).samples,
    )


def in_words_of_the_spec(hint: str) -> str:
    """Return a hint to who types `penstock engine build` as one to who writes model.yaml."""
    return _OPTION.sub(lambda found: _FIELDS[found[0]], hint)
