"""A pipeline, compiled: its text, what it takes, and the hash of its content."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from penstock import __version__
from penstock.core.errors import ConfigurationError
from pipelines.submission.errors import UnknownParameter
from pipelines.submission.naming import digest, version_name

_IMAGE = re.compile(r"^(?P<before>\s+image: )(?P<image>penstock[\w.-]*:\S+)$", re.MULTILINE)
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
        images: Registry that is put before the names of our images, HOST/PATH; none without it.
    """
    from pipelines.local import import_kfp

    import_kfp()
    from pipelines.compile import PIPELINES, compile_text

    if name not in PIPELINES:
        raise ConfigurationError(
            f"pipeline: found {name!r}; allowed: {', '.join(sorted(PIPELINES))}"
        )
    return package_of(with_registry(compile_text(PIPELINES[name]), images))


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


_LIST = "give it as --param NAME=VALUE; penstock pipelines list shows what each takes"
