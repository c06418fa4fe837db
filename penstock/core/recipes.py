"""How weights are quantized, as values: one class per scheme, and short names for people.

A scheme's name is the name of the artifact it makes (`penstock.core.matrix_rows.ARTIFACTS`). A
recipe has a field only where the field has a meaning, so what is written is what is done.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from penstock.core.errors import RecipeImpossible
from penstock.core.identity import Digest

GroupSize = Literal[32, 64, 128]
"""Weights per scale: the sizes that vLLM's and TensorRT-LLM's kernels have."""

GROUP_SIZES: tuple[GroupSize, ...] = get_args(GroupSize)
KvCache = Literal["none", "fp8"]
Method = Literal["rtn", "gptq"]
Producer = Literal["llm-compressor", "modelopt"]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Calibration(_Part):
    """Prompts that the producer runs through the model."""

    samples: int = Field(128, ge=1, le=4096, description="At most so many prompts.")
    length: int = Field(512, ge=1, le=32768, description="Tokens of a prompt; the rest is cut.")


class _Recipe(_Part):
    ignore: tuple[str, ...] = Field(
        ("lm_head",),
        description="Layers that stay as they are: names or patterns such as `*.down_proj`.",
    )

    @property
    def digest(self) -> Digest:
        """Identity: the SHA-256 of the canonical JSON, defaults written out."""
        body = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return Digest.of(body.encode())

    @property
    def bits(self) -> float:
        """Bits per quantized weight on disk, scales and zero points of the groups included."""
        return 8.0

    @property
    def needs_calibration(self) -> bool:
        """Whether the producer needs prompts."""
        return getattr(self, "calibration", None) is not None

    @property
    def producer(self) -> Producer:
        """The library that carries it out."""
        return "llm-compressor"

    @property
    def artifacts(self) -> tuple[str, ...]:
        """Artifacts of the matrix that an engine must run, all of them."""
        return (self.name,)

    @property
    def name(self) -> str:
        """The scheme."""
        return str(getattr(self, "scheme", ""))

    @property
    def label(self) -> str:
        """A few words that tell this recipe from its neighbours."""
        words = [self.name]
        words += [str(v) for v in (getattr(self, "method", None),) if v]
        words += [f"g{v}" for v in (getattr(self, "group_size", None),) if v]
        words += ["kv-fp8"] if getattr(self, "kv_cache", "none") == "fp8" else []
        kept = [p for p in self.ignore if p != "lm_head"]
        words += [f"+{len(kept)} kept"] if kept else []
        eight = getattr(self, "fp8_layers", ())
        return " ".join([*words, *([f"+{len(eight)} fp8"] if eight else [])])


class Fp8Dynamic(_Recipe):
    """FP8 weights per channel; activations are scaled per token while the model runs."""

    scheme: Literal["fp8-dynamic"] = "fp8-dynamic"


class Fp8(_Recipe):
    """FP8 weights and activations per tensor, activation scales from calibration."""

    scheme: Literal["fp8"] = "fp8"
    calibration: Calibration = Calibration()
    kv_cache: KvCache = Field("none", description="Type of the attention's keys and values.")


class Fp8Block(_Recipe):
    """FP8 weights in blocks of 128 x 128; activations are scaled while the model runs."""

    scheme: Literal["fp8-block"] = "fp8-block"


class W4A16(_Recipe):
    """INT4 weights, symmetric, a scale per group; activations stay in 16 bits."""

    scheme: Literal["w4a16"] = "w4a16"
    method: Method = Field("rtn", description="Round to nearest, or GPTQ (needs calibration).")
    group_size: GroupSize = 128
    calibration: Calibration | None = Field(None, validate_default=True, description="Of GPTQ.")
    fp8_layers: tuple[str, ...] = Field(
        (), description="Layers stored as `fp8-dynamic` instead: names or patterns."
    )

    @field_validator("calibration")
    @classmethod
    def _of_gptq_only(cls, given: Calibration | None, info: ValidationInfo) -> Calibration | None:
        if info.data.get("method") == "gptq":
            return given or Calibration()
        if given is not None:
            raise ValueError("method rtn rounds without data: leave calibration out, or set gptq")
        return None

    @property
    def bits(self) -> float:
        """Four, and a scale of 16 bits per group."""
        return 4 + 16 / self.group_size

    @property
    def artifacts(self) -> tuple[str, ...]:
        """INT4, and FP8 where some layers are."""
        return ("w4a16", "fp8-dynamic") if self.fp8_layers else ("w4a16",)


class Awq(_Recipe):
    """INT4 weights, asymmetric, scaled so that what activates most is rounded least."""

    scheme: Literal["awq"] = "awq"
    group_size: GroupSize = 128
    calibration: Calibration = Calibration()

    @property
    def bits(self) -> float:
        """Four, a scale of 16 bits and a zero point of 4 per group."""
        return 4 + 20 / self.group_size


class W8A8(_Recipe):
    """INT8 weights per channel; INT8 activations, scaled per token while the model runs."""

    scheme: Literal["w8a8"] = "w8a8"


class Nvfp4(_Recipe):
    """FP4 weights and activations in groups of 16 with FP8 scales."""

    scheme: Literal["nvfp4"] = "nvfp4"
    calibration: Calibration = Calibration()

    @property
    def bits(self) -> float:
        """Four, and a scale of 8 bits per group of 16."""
        return 4.5


class _ModelOpt(_Recipe):
    @property
    def producer(self) -> Producer:
        """ModelOpt: transformers does not read what it writes, TensorRT-LLM does."""
        return "modelopt"


class ModelOptFp8(_ModelOpt):
    """FP8 weights and activations per tensor."""

    scheme: Literal["modelopt-fp8"] = "modelopt-fp8"
    calibration: Calibration = Calibration()
    kv_cache: KvCache = Field("none", description="Type of the attention's keys and values.")


class _ModelOptInt4(_ModelOpt):
    group_size: Literal[64, 128] = 128

    @property
    def bits(self) -> float:
        """Four, and a scale of 32 bits per group."""
        return 4 + 32 / self.group_size


class ModelOptInt4Awq(_ModelOptInt4):
    """INT4 weights by AWQ."""

    scheme: Literal["modelopt-int4-awq"] = "modelopt-int4-awq"
    calibration: Calibration = Calibration()


class ModelOptW4A8Awq(_ModelOptInt4):
    """INT4 weights by AWQ, FP8 activations."""

    scheme: Literal["modelopt-w4a8-awq"] = "modelopt-w4a8-awq"
    calibration: Calibration = Calibration()


class ModelOptNvfp4(_ModelOpt):
    """FP4 weights and activations in groups of 16; calibrated on a GPU."""

    scheme: Literal["modelopt-nvfp4"] = "modelopt-nvfp4"
    calibration: Calibration = Calibration()
    kv_cache: KvCache = Field("none", description="Type of the attention's keys and values.")

    @property
    def bits(self) -> float:
        """Four, and a scale of 8 bits per group of 16."""
        return 4.5


Recipe = Annotated[
    Fp8Dynamic
    | Fp8
    | Fp8Block
    | W4A16
    | Awq
    | W8A8
    | Nvfp4
    | ModelOptFp8
    | ModelOptInt4Awq
    | ModelOptW4A8Awq
    | ModelOptNvfp4,
    Field(discriminator="scheme"),
]
"""Any recipe; `scheme` says which."""

_ADAPTER: TypeAdapter[Recipe] = TypeAdapter(Recipe)

DEFAULTS: dict[str, Recipe] = {
    r.scheme: r
    for r in (
        Fp8Dynamic(),
        Fp8(),
        Fp8Block(),
        W4A16(),
        Awq(),
        W8A8(),
        Nvfp4(),
        ModelOptFp8(),
        ModelOptInt4Awq(),
        ModelOptW4A8Awq(),
        ModelOptNvfp4(),
    )
}
"""The default recipe of each artifact of the matrix, by its exact name."""

SHORT_NAMES: dict[str, Recipe] = {
    **{name: recipe for name, recipe in DEFAULTS.items() if name != "fp8"},
    "fp8": Fp8Dynamic(),
    "fp8-static": Fp8(),
    "int4": W4A16(),
    "gptq": W4A16(method="gptq"),
    "int8": W8A8(),
}
"""What a person may write. `fp8` is the FP8 that needs no data and that every engine here runs;
the artifact of that name in the matrix is `fp8-static` to people."""


def recipe_of(name: str) -> Recipe:
    """Return the default recipe of a short name.

    Raises:
        RecipeImpossible: No such name; the nearest is told.
    """
    if name in SHORT_NAMES:
        return SHORT_NAMES[name]
    close = difflib.get_close_matches(name.lower(), list(SHORT_NAMES), n=1, cutoff=0.5)
    guess = f"; did you mean {close[0]!r}?" if close else ""
    raise RecipeImpossible(
        f"no recipe is called {name!r}; allowed: {', '.join(sorted(SHORT_NAMES))}{guess}",
        hint="choose one of them, or write a recipe document with a scheme",
    )


def parse_recipe(body: Mapping[str, Any], *, where: str = "recipe") -> Recipe:
    """Return the recipe in a document's mapping; `parse_recipe(r.model_dump()) == r`.

    Raises:
        RecipeImpossible: An unknown scheme or field, or a value out of bounds; every one is told.
    """
    try:
        return _ADAPTER.validate_json(json.dumps(body, default=str))
    except ValidationError as problem:
        told = "; ".join(_told(e, body) for e in problem.errors(include_url=False))
        raise RecipeImpossible(
            f"{where}: {told}", hint=f"schemes: {', '.join(DEFAULTS)}"
        ) from problem


def _told(error: Any, body: Mapping[str, Any]) -> str:
    # pydantic names the branch of the union first; people do not write it
    path = ".".join(str(p) for p in error["loc"][1:]) or "scheme"
    if error["type"] in ("union_tag_invalid", "union_tag_not_found"):
        found = str(body.get("scheme", "nothing"))
        close = difflib.get_close_matches(found.lower(), list(DEFAULTS), n=1, cutoff=0.5)
        guess = f"; did you mean {close[0]!r}?" if close else ""
        return f"scheme: found {found!r}; allowed: {', '.join(DEFAULTS)}{guess}"
    if error["type"] == "extra_forbidden":
        recipe = DEFAULTS[str(error["loc"][0])]
        fields = list(type(recipe).model_fields)
        return f"{path}: {recipe.name} has no such field; allowed: {', '.join(fields)}"
    found = json.dumps(error["input"], default=str)[:60]
    return f"{path}: found {found}; {error['msg'].removeprefix('Value error, ')}"
