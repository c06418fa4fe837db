"""A pipeline, compiled: its text, what it takes, and the hash of its content."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from penstock import __version__
from penstock.core.errors import ConfigurationError
from pipelines.submission.errors import UnknownParameter
from pipelines.submission.naming import digest, version_name

_IMAGE = re.compile(
    r"^(?P<before>\s+(?:image|constant): )(?P<image>penstock[\w.-]*:\S+)$", re.MULTILINE
)
_PINNED = re.compile(r"[\w.-]+(:\d+)?(/[\w.-]+)+@sha256:[0-9a-f]{64}")
_KINDS: dict[str, tuple[type, ...]] = {
    "STRING": (str,),
    "BOOLEAN": (bool,),
    "NUMBER_INTEGER": (int,),
    "NUMBER_DOUBLE": (int, float),
    "LIST": (list,),
    "STRUCT": (dict,),
}


@dataclass(frozen=True, slots=True)
class Parameter:
    """What a pipeline takes."""

    name: str
    kind: str
    """In the IR's words: STRING, NUMBER_INTEGER, …"""

    required: bool
    description: str = ""


@dataclass(frozen=True, slots=True)
class Package:
    """A compiled pipeline."""

    name: str
    """As the server knows it: `penstock-lifecycle`."""

    text: str
    """Both YAML documents."""

    digest: str
    """Content hash of the IR, in hex."""

    parameters: tuple[Parameter, ...]
    description: str = ""

    @property
    def version(self) -> str:
        """What its version is called: Penstock's, and the content hash."""
        return version_name(__version__, self.digest)


def compiled(name: str, *, images: str = "") -> Package:
    """Return one of our pipelines, compiled.

    Args:
        name: Which one, as in `pipelines.compile.PIPELINES`.
        images: Registry that is put before the names of our images, HOST/PATH; or a file
            NAME.json that says for each where it is, by digest: see `pinned`. Without it, the
            names alone.
    """
    from pipelines.local import import_kfp

    import_kfp()
    from pipelines.compile import PIPELINES, compile_text

    if name not in PIPELINES:
        raise ConfigurationError(
            f"pipeline: found {name!r}; allowed: {', '.join(sorted(PIPELINES))}"
        )
    text = compile_text(PIPELINES[name])
    if images.endswith(".json"):
        return package_of(pinned(text, Path(images)))
    return package_of(with_registry(text, images))


def names() -> tuple[str, ...]:
    """Return our pipelines' names."""
    from pipelines.local import import_kfp

    import_kfp()
    from pipelines.compile import PIPELINES

    return tuple(sorted(PIPELINES))


def with_registry(text: str, registry: str) -> str:
    """Return a package whose images of ours come from a registry.

    Args:
        text: The compiled package.
        registry: HOST/PATH; empty leaves the names as they are.
    """
    if not registry:
        return text
    return _IMAGE.sub(rf"\g<before>{registry.rstrip('/')}/\g<image>", text)


def pinned(text: str, file: Path) -> str:
    """Return a package whose images of ours are named by digest.

    Args:
        text: The compiled package.
        file: JSON, `{"penstock-python": "HOST/PATH/penstock-python@sha256:…"}`, as who pushed the
            images knows it.

    Raises:
        ConfigurationError: There is no such file, or it does not say where an image is, by digest.
    """
    try:
        places = json.loads(file.read_text())
    except OSError as problem:
        raise ConfigurationError(f"{file}: {problem.strerror}", hint=_PINS) from problem
    except ValueError as problem:
        raise ConfigurationError(f"{file}: no JSON: {problem}", hint=_PINS) from problem
    if not isinstance(places, dict):
        raise ConfigurationError(f"{file}: found no object of names", hint=_PINS)

    def place(found: re.Match[str]) -> str:
        name = found["image"].partition(":")[0]
        where = places.get(name)
        if not isinstance(where, str) or not _PINNED.fullmatch(where):
            told = "nothing" if where is None else repr(where)
            raise ConfigurationError(
                f"{file}: {name}: found {told}; allowed: HOST/PATH@sha256:DIGEST", hint=_PINS
            )
        return f"{found['before']}{where}"

    return _IMAGE.sub(place, text)


def package_of(text: str) -> Package:
    """Return what a compiled text is."""
    documents: list[dict[str, Any]] = [d for d in yaml.safe_load_all(text) if d]
    spec = documents[0]
    declared = spec.get("root", {}).get("inputDefinitions", {}).get("parameters", {})
    return Package(
        name=spec["pipelineInfo"]["name"],
        text=text,
        digest=digest(documents),
        parameters=tuple(_parameter(name, each) for name, each in declared.items()),
        description=spec["pipelineInfo"].get("description", ""),
    )


def check_parameters(package: Package, given: Mapping[str, Any]) -> None:
    """Raise `UnknownParameter` where parameters are not the pipeline's, before anything is sent."""
    known = {each.name: each for each in package.parameters}
    takes = f"{package.name} takes {', '.join(known) or 'nothing'}"
    for name, value in given.items():
        if name not in known:
            raise UnknownParameter(f"parameter {name}: there is none; {takes}", hint=_LIST)
        kinds = _KINDS.get(known[name].kind, (object,))
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            raise UnknownParameter(
                f"parameter {name}: found {value!r}; allowed: {known[name].kind}", hint=_LIST
            )
    for each in package.parameters:
        if each.required and each.name not in given:
            raise UnknownParameter(f"parameter {each.name}: no value is given; {takes}", hint=_LIST)


def _parameter(name: str, body: Mapping[str, Any]) -> Parameter:
    return Parameter(
        name=name,
        kind=body["parameterType"],
        required=not body.get("isOptional") and "defaultValue" not in body,
        description=body.get("description", ""),
    )


_PINS = 'write {"penstock-python": "registry.example/team/penstock-python@sha256:..."}'
_LIST = "give it as --param NAME=VALUE; penstock pipelines list shows what each takes"
