"""What is to be built: the model, its recipe, the shape of requests, the image, the GPU."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from penstock.core.errors import RecipeImpossible
from penstock.core.hardware import ACCELERATORS, Accelerator
from penstock.core.recipes import Calibration, Recipe
from penstock.core.spec import AS_IT_CAME

Strategy = Literal["checkpoint", "engine"]
Scheme = Literal["none", "fp8", "int4_awq", "w4a8_awq", "nvfp4"]

ENGINE = "tensorrt-llm"
"""Its name in the matrix and in model.yaml."""

SCHEME_OF: dict[str, Scheme] = {
    "modelopt-fp8": "fp8",
    "modelopt-int4-awq": "int4_awq",
    "modelopt-w4a8-awq": "w4a8_awq",
    "modelopt-nvfp4": "nvfp4",
}
"""A recipe's name to what TensorRT-LLM calls that; `none` are the weights as they came."""

PRECISION_OF: dict[Scheme, str] = {
    "none": AS_IT_CAME,
    **{scheme: name for name, scheme in SCHEME_OF.items()},
}
"""And back, in the words of model.yaml."""

CALIBRATION = "cnn_dailymail"
"""The data set that is quantize.py's default."""

ALGORITHMS: dict[Scheme, str] = {
    "fp8": "FP8",
    "int4_awq": "W4A16_AWQ",
    "w4a8_awq": "W4A8_AWQ",
    "nvfp4": "NVFP4",
}
"""`quant_algo` in ModelOpt's hf_quant_config.json, for the schemes that are planned."""


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What a checkpoint's config.json says, as far as building needs it."""

    layers: int
    heads: int
    kv_heads: int
    hidden_size: int
    intermediate_size: int
    max_positions: int
    dtype: str
    weights_bytes: int
    """Sum of the safetensors files."""

    quantized: Scheme | None = None
    """ModelOpt's scheme, if the checkpoint is quantized already."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What is served at once, and over how many GPUs."""

    tp: int = 1
    pp: int = 1
    max_batch_size: int = 64
    max_input_len: int = 3072
    """Tokens of one prompt."""

    max_seq_len: int = 4096
    """Tokens of one prompt and its answer."""

    max_num_tokens: int = 8192
    """Tokens of one step, over all requests."""

    max_beam_width: int = 1

    @property
    def gpus(self) -> int:
        """Devices, one rank each."""
        return self.tp * self.pp


_IMAGE = re.compile(r"(?P<name>[\w./:-]+?):(?P<tag>[\w.+-]+)(@(?P<digest>sha256:[0-9a-f]{64}))?")


@dataclass(frozen=True, slots=True)
class RuntimeImage:
    """A TensorRT-LLM release image. `str(RuntimeImage.parse(text)) == text` always holds."""

    name: str
    tag: str
    digest: str = ""

    def __str__(self) -> str:
        return f"{self.name}:{self.tag}" + (f"@{self.digest}" if self.digest else "")

    @property
    def identity(self) -> str:
        """What goes into a build key: the digest, or the exact tag where none is known."""
        return self.digest or str(self)

    @property
    def line(self) -> tuple[int, int]:
        """Return major and minor version."""
        major, minor, *_ = self.tag.split(".")
        return int(major), int(minor)

    @classmethod
    def parse(cls, text: str) -> RuntimeImage:
        """Read `NAME:VERSION` or `NAME:VERSION@sha256:DIGEST`; the version must be exact."""
        match = _IMAGE.fullmatch(text)
        if match is None or not re.match(r"\d+\.\d+\.\d+", match["tag"]):
            raise RecipeImpossible(
                f"not an image with an exact TensorRT-LLM version: {text!r}",
                hint="NAME:VERSION or NAME:VERSION@sha256:DIGEST, as in "
                "nvcr.io/nvidia/tensorrt-llm/release:1.2.1",
            )
        return cls(match["name"], match["tag"], match["digest"] or "")


@dataclass(frozen=True, slots=True)
class Build:
    """What is to be built, and for what."""

    strategy: Strategy
    model: ModelFacts
    recipe: Recipe | None
    """One of ModelOpt's; None quantizes nothing."""

    shape: Shape
    image: RuntimeImage
    gpu: Accelerator
    calibration: str = CALIBRATION
    """`--calib_dataset`: a data set's name on the Hub, or a folder that holds it."""

    @property
    def scheme(self) -> Scheme:
        """How weights are quantized here."""
        return "none" if self.recipe is None else SCHEME_OF[self.recipe.name]

    @property
    def served_scheme(self) -> Scheme:
        """The scheme of the weights that are served."""
        return self.model.quantized or self.scheme

    @property
    def kv_dtype(self) -> Literal["auto", "fp8"]:
        """Type of the attention's keys and values."""
        return "fp8" if getattr(self.recipe, "kv_cache", "none") == "fp8" else "auto"

    @property
    def group_size(self) -> int:
        """Weights per scale, for AWQ; 0 for others."""
        return int(getattr(self.recipe, "group_size", 0))

    @property
    def samples(self) -> int:
        """Prompts to calibrate with, at most."""
        found: Calibration = getattr(self.recipe, "calibration", Calibration())
        return found.samples


def facts_of(
    config: Mapping[str, Any], weights_bytes: int, quantization: Mapping[str, Any] | None = None
) -> ModelFacts:
    """Return the facts of a checkpoint.

    Args:
        config: Its config.json.
        weights_bytes: Sum of its safetensors files.
        quantization: Its hf_quant_config.json, if there is one.

    Raises:
        RecipeImpossible: A field is missing, or it is quantized by something we cannot judge.
    """
    try:
        heads = int(config["num_attention_heads"])
        return ModelFacts(
            layers=int(config["num_hidden_layers"]),
            heads=heads,
            kv_heads=int(config.get("num_key_value_heads") or heads),
            hidden_size=int(config["hidden_size"]),
            intermediate_size=int(config["intermediate_size"]),
            max_positions=int(config["max_position_embeddings"]),
            # transformers 5 writes `dtype`, transformers 4 `torch_dtype`
            dtype=str(config.get("dtype") or config.get("torch_dtype") or "bfloat16"),
            weights_bytes=weights_bytes,
            quantized=_quantized(config, quantization),
        )
    except (KeyError, TypeError, ValueError) as problem:
        raise RecipeImpossible(
            f"config.json: cannot plan without {problem}; a decoder-only language model is needed"
        ) from problem


def _quantized(config: Mapping[str, Any], quantization: Mapping[str, Any] | None) -> Scheme | None:
    if quantization is None:
        found = config.get("quantization_config")
        if not found or found.get("quant_method") == "modelopt":
            return _scheme(found.get("quant_algo")) if found else None
        raise RecipeImpossible(
            f"the checkpoint is quantized by {found.get('quant_method')!r}; only ModelOpt's are "
            "planned for TensorRT-LLM",
            hint="quantize its parent with --precision, or serve it with vLLM",
        )
    return _scheme(quantization["quantization"].get("quant_algo"))


def _scheme(algorithm: object) -> Scheme | None:
    if algorithm is None:
        return None
    for scheme, name in ALGORITHMS.items():
        if name == algorithm:
            return scheme
    raise RecipeImpossible(
        f"the checkpoint's quant_algo is {algorithm!r}; planned are "
        + ", ".join(ALGORITHMS.values()),
        hint="quantize its parent with one of them",
    )


def accelerator(name: str) -> Accelerator:
    """Return a GPU by its name, or by an unambiguous part of it: `H100` is `nvidia-h100-80gb`."""
    words = name.lower()
    near = [a for a in ACCELERATORS.values() if a.sm and words in a.name.split("-")]
    found = [ACCELERATORS[words]] if words in ACCELERATORS else near
    if len(found) != 1 or found[0].sm is None:
        allowed = [a.name for a in (near or ACCELERATORS.values()) if a.sm]
        raise RecipeImpossible(f"no GPU {name!r}; allowed: {', '.join(allowed)}")
    return found[0]
