"""The build key: everything an engine depends on. Two builds with one key are one build.

An engine runs with the TensorRT version and on the GPU architecture that it was built with, and
nowhere else. A checkpoint's bytes do not depend on the GPU: its key names no node.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from components.trtllm.model import PRECISION_OF, Build, Scheme, Shape, Strategy
from components.trtllm.plan import plugins
from components.trtllm.refusals import unfit
from penstock.core.errors import ConfigurationError, EngineRefused
from penstock.core.identity import Digest


@dataclass(frozen=True, slots=True)
class Node:
    """Where an engine is built, or shall run."""

    gpu: str
    """Name of the card; its architecture decides, not the name."""

    sm: int
    driver: int
    """Major version of the NVIDIA driver."""

    cuda: int
    """Major version of CUDA in the runtime image."""

    os: str = "linux"
    arch: str = "x86_64"


@dataclass(frozen=True, slots=True)
class Runtime:
    """What shall run it: the node, and the image there."""

    image: str
    """Digest, or the exact tag where no digest is known."""

    version: str
    """TensorRT-LLM's, as the image's tag names it."""

    node: Node


@dataclass(frozen=True, slots=True)
class BuildKey:
    """What went in. `BuildKey.from_json(k.to_json()) == k`."""

    weights: Digest
    """Root of the parent's manifest."""

    recipe: Digest
    """Of the recipe and what it was calibrated with."""

    strategy: Strategy
    scheme: Scheme
    kv_dtype: str
    shape: Shape
    plugins: tuple[tuple[str, str], ...]
    image: str
    version: str
    node: Node | None
    """None where the result is the same for every GPU."""

    @property
    def digest(self) -> Digest:
        """Return the identity: SHA-256 of the canonical JSON."""
        return Digest.of(self.to_json().encode())

    def to_json(self) -> str:
        """Return the canonical form: keys sorted, no spaces, ASCII."""
        body = asdict(self) | {
            "weights": str(self.weights),
            "recipe": str(self.recipe),
            "plugins": dict(self.plugins),
        }
        return json.dumps(body, sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> BuildKey:
        """Read a key."""
        try:
            body: dict[str, Any] = json.loads(text)
            node = body["node"]
            key = cls(
                **body
                | {
                    "weights": Digest.parse(body["weights"]),
                    "recipe": Digest.parse(body["recipe"]),
                    "shape": Shape(**body["shape"]),
                    "plugins": tuple(sorted(body["plugins"].items())),
                    "node": None if node is None else Node(**node),
                }
            )
        except (ValueError, KeyError, TypeError, AttributeError) as problem:
            raise ConfigurationError(f"not a build key: {problem!r}") from problem
        if key.scheme not in PRECISION_OF:
            raise ConfigurationError(f"not a build key: scheme {key.scheme!r}")
        return key


def key_of(
    build: Build, weights: Digest, node: Node | None, prompts: Digest | None = None
) -> BuildKey:
    """Return the key of a build.

    Args:
        build: What is built.
        weights: Root of the parent's manifest.
        node: Where it is built; needed for an engine, ignored for a checkpoint.
        prompts: Content of `build.calibration` where that is a folder, which may lie anywhere.
    """
    bound = build.strategy == "engine"
    if bound and node is None:
        raise ConfigurationError(
            "an engine's key needs the driver and CUDA of the node it is built on",
            hint="build on the GPU node, or name them: --driver, --cuda",
        )
    return BuildKey(
        weights=weights,
        recipe=_recipe(build, prompts),
        strategy=build.strategy,
        scheme=build.served_scheme,
        kv_dtype=build.kv_dtype,
        shape=build.shape,
        plugins=tuple(sorted(plugins(build).items())),
        image=build.image.identity,
        version=build.image.tag,
        node=node if bound else None,
    )


def _recipe(build: Build, prompts: Digest | None) -> Digest:
    body = [str(build.recipe.digest), str(prompts or build.calibration)] if build.recipe else []
    return Digest.of(json.dumps(body).encode())


def mismatch(key: BuildKey, runtime: Runtime) -> list[str]:
    """Return every reason why what a key names must not run there; empty when it may."""
    found = [
        f"{what}: built for {built}, here {here}"
        for what, built, here in (
            ("TensorRT-LLM", key.version, runtime.version),
            ("image", key.image, runtime.image),
        )
        if built != here
    ]
    if key.node is None:
        why = unfit(key.scheme, key.version, runtime.node.gpu)
        return found + ([f"GPU: {why}"] if why else [])
    # another card of the same architecture runs it: tactics were timed elsewhere, results hold
    built_on = asdict(replace(key.node, gpu=runtime.node.gpu))
    return found + _differences(built_on, asdict(runtime.node))


def refuse_mismatch(key: BuildKey, runtime: Runtime) -> None:
    """Raise `EngineRefused` with every difference, before anything is scheduled."""
    if reasons := mismatch(key, runtime):
        raise EngineRefused(
            f"{key.strategy} {key.digest.short} does not run on {runtime.node.gpu}: "
            + "; ".join(reasons),
            hint="build it for this node: penstock engine build",
        )


_LABELS = {"sm": "GPU architecture", "driver": "driver", "cuda": "CUDA", "os": "OS", "arch": "CPU"}


def _differences(built: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    return [
        f"{label}: built for {built[name]}, here {here[name]}"
        for name, label in _LABELS.items()
        if built[name] != here[name]
    ]
