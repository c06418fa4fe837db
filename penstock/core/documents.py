"""From text to a spec, or to one message per mistake."""

from __future__ import annotations

import difflib
import json
import re
from pathlib import PurePath
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from penstock.core.errors import Mistake, SpecError
from penstock.core.serving import SPECULATIVE
from penstock.core.sources import DataRef
from penstock.core.spec import ModelSpec


class _UniqueKeys(yaml.SafeLoader):
    """YAML keeps the last of two equal keys; a person who wrote both meant something else."""


def _mapping(loader: _UniqueKeys, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: dict[Any, Any] = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        if key in seen:
            raise yaml.constructor.ConstructorError(
                None, None, f"{key!r} stands twice", key_node.start_mark
            )
        seen[key] = loader.construct_object(value_node, deep=True)
    return seen


# YAML 1.1 takes 1e-5 for text; people, JSON and YAML 1.2 mean a number
_UniqueKeys.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+[eE][-+]?[0-9]+$"), list("-+0123456789")
)
_UniqueKeys.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def parse_spec(text: str, *, where: str = "model.yaml", folder: str | None = None) -> ModelSpec:
    """Return the spec in a YAML (or JSON) document.

    Args:
        text: The document.
        where: Its name, for messages.
        folder: Where relative data paths start; None leaves them as they are.

    Raises:
        SpecError: With every mistake: its path, what was found, what is allowed.
    """
    try:
        body = yaml.load(text, Loader=_UniqueKeys)  # noqa: S506 - a SafeLoader with unique keys
    except yaml.YAMLError as problem:
        raise SpecError(where, (_syntax(problem),)) from problem
    if not isinstance(body, dict):
        found = "nothing" if body is None else type(body).__name__
        raise SpecError(where, (Mistake("(document)", found, "a mapping of fields"),))
    try:
        spec = ModelSpec.model_validate_json(json.dumps(body, default=str))
    except ValidationError as problem:
        raise SpecError(where, mistakes(problem)) from problem
    return spec if folder is None else _anchored(spec, folder)


def mistakes(problem: ValidationError) -> tuple[Mistake, ...]:
    """Return one `Mistake` per problem that pydantic found, in its order."""
    found: dict[str, Mistake] = {}
    errors = problem.errors(include_url=False)
    for mistake in (_kind(e) if "union_tag" in e["type"] else _mistake(e) for e in errors):
        first = found.get(mistake.path)
        # A union complains once per branch: one mistake, with what each branch allows.
        found[mistake.path] = mistake if first is None else _either(first, mistake)
    inner = [path for path in found if "." in path]
    return tuple(m for p, m in found.items() if not any(i.startswith(f"{p}.") for i in inner))


def _either(first: Mistake, second: Mistake) -> Mistake:
    allowed = f"{first.allowed}, or {second.allowed}"
    return Mistake(first.path, first.found, allowed, first.nearest or second.nearest)


def _syntax(problem: yaml.YAMLError) -> Mistake:
    mark = getattr(problem, "problem_mark", None)
    place = f"line {mark.line + 1}, column {mark.column + 1}" if mark else "(document)"
    return Mistake(place, str(getattr(problem, "problem", problem)), "valid YAML, each key once")


def _kind(error: ErrorDetails) -> Mistake:
    """Say that `kind` is missing, or names no branch."""
    tag = error.get("ctx", {}).get("tag")
    found = "nothing" if tag is None else json.dumps(tag)
    kinds = list(SPECULATIVE)
    return Mistake(f"{_written(error['loc'])}.kind", found, " | ".join(kinds), _near(tag, kinds))


def _mistake(error: ErrorDetails) -> Mistake:
    place = tuple(part for part in error["loc"] if part not in _BRANCHES)
    path = _written(place)
    context = error.get("ctx", {})
    match error["type"]:
        case "extra_forbidden":
            fields = _fields(place[:-1])
            return Mistake(
                path, "an unknown field", "one of " + ", ".join(fields), _near(place[-1], fields)
            )
        case "missing":
            return Mistake(path, "nothing", _description(place) or "a value")
        case "literal_error" | "enum":
            options = [o.strip(" '") for o in context["expected"].replace(" or ", ",").split(",")]
            return Mistake(path, _shown(error), " | ".join(options), _near(error["input"], options))
        case "value_error":
            allowed = str(context["error"])
            return Mistake(
                path, _shown(error), allowed, _near(error["input"], allowed.split(" | "))
            )
        case "string_pattern_mismatch":
            return Mistake(path, _shown(error), _description(place) or _description(place[:-2]))
        case _:
            return Mistake(path, _shown(error), error["msg"].removeprefix("Input should be "))


_BRANCHES = {"KServeTarget", "literal['local']"}
"""pydantic names the branch of a union in the path; people do not write it."""


def _written(place: tuple[int | str, ...]) -> str:
    """Return a path as people write it: without the branch, or the mark of a key, in it."""
    kept = [
        str(part)
        for before, part in zip(("", *place), place, strict=False)
        if part != "[key]" and not (before == "speculative" and part in SPECULATIVE)
    ]
    return ".".join(kept)


def _shown(error: ErrorDetails) -> str:
    text = json.dumps(error["input"], default=str, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."


def _near(word: object, options: list[str]) -> str:
    close = difflib.get_close_matches(str(word), options, n=1, cutoff=0.6)
    return close[0] if close else ""


def _model(place: tuple[int | str, ...]) -> type[BaseModel] | None:
    model: type[BaseModel] = ModelSpec
    named = False
    for before, part in zip(("", *place), place, strict=False):
        if part == "speculative":
            continue  # what may stand there depends on its kind, the part behind
        if before == "speculative":
            model = SPECULATIVE.get(str(part), model)
            continue
        if named:  # a name that the document chose, in a mapping of names to models
            named = False
            continue
        field = {f.alias or name: f for name, f in model.model_fields.items()}.get(str(part))
        inner = field.annotation if field else None
        branches = [inner, *getattr(inner, "__args__", ())]
        models = [b for b in branches if isinstance(b, type) and issubclass(b, BaseModel)]
        if not models:
            return None
        model = models[0]
        named = getattr(inner, "__origin__", None) is dict
    return model


def _fields(place: tuple[int | str, ...]) -> list[str]:
    model = _model(place)
    return [f.alias or name for name, f in model.model_fields.items()] if model else []


def _description(place: tuple[int | str, ...]) -> str:
    model = _model(place[:-1])
    fields = model.model_fields if model else {}
    field = {f.alias or name: f for name, f in fields.items()}.get(str(place[-1]))
    return (field.description or "").rstrip(".") if field else ""


def _anchored(spec: ModelSpec, folder: str) -> ModelSpec:
    paths = {
        name: str(PurePath(folder, path))
        for name, path in spec.data.model_dump().items()
        if path is not None and DataRef.parse(path).kind == "file"
    }
    return spec.model_copy(update={"data": spec.data.model_copy(update=paths)})
