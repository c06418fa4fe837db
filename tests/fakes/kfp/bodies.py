"""Request bodies against kfp_server_api's models: the gateway refuses fields it does not know."""

from __future__ import annotations

import re
from typing import Any

import kfp_server_api

from tests.fakes.kfp.failure import Failure

_INNER = re.compile(r"^(?:list\[(?P<item>.+)\]|dict\(str, (?P<value>.+)\))$")
_PLAIN: dict[str, tuple[type, ...]] = {
    "str": (str, int),  # an int64 is a string in JSON; a number is taken, too
    "bool": (bool,),
    "int": (int,),
    "datetime": (str,),
}


def check(body: object, kind: str, path: str = "") -> None:
    """Raise `Failure` 400 where a body is not what a model has."""
    if body is None or kind == "object":
        return
    inner = _INNER.match(kind)
    if inner and inner["item"]:
        for number, item in enumerate(_as(body, list, path)):
            check(item, inner["item"], f"{path}[{number}]")
    elif inner:
        for key, value in _as(body, dict, path).items():
            check(value, inner["value"], f"{path}.{key}")
    elif kind in _PLAIN:
        _as(body, _PLAIN[kind], path)
    else:
        _model(body, getattr(kfp_server_api, kind), path)


def _model(body: object, model: Any, path: str) -> None:
    allowed = getattr(model, "allowable_values", None)
    if allowed is not None:
        if body not in allowed:
            raise _syntax(f"invalid value for enum field {path}: {body!r}")
        return
    types = {json: model.openapi_types[name] for name, json in model.attribute_map.items()}
    for key, value in _as(body, dict, path).items():
        if key not in types:
            raise _syntax(f'unknown field "{key}"')
        check(value, types[key], f"{path}.{key}".lstrip("."))


def _as(body: object, kind: Any, path: str) -> Any:
    if not isinstance(body, kind) or (kind == (int,) and isinstance(body, bool)):
        raise _syntax(f"invalid value for field {path}: {str(body)[:40]!r}")
    return body


def _syntax(said: str) -> Failure:
    return Failure(400, f"proto: syntax error: {said}")
