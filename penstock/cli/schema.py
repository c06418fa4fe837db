"""Reference documents that are generated from the spec: `python -m penstock.cli.schema`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from penstock.core import matrix
from penstock.core.spec import ModelSpec
from serving.runtimes import reference

REFERENCE = Path("docs/reference")


def documents() -> dict[str, str]:
    """Return file name → text of every generated reference document."""
    schema = ModelSpec.model_json_schema(by_alias=True)
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
    return {
        "model.schema.json": json.dumps(schema, indent=2) + "\n",
        "model-yaml.md": _reference(schema),
        "precision.md": matrix.render(),
        "runtimes.md": reference.render(),
    }


def _reference(schema: dict[str, Any]) -> str:
    lines = [
        "# model.yaml",
        "",
        "Generated from the schema by `make golden`. `name` and `source` suffice.",
        "",
        "| Field | Allowed | Default | Meaning |",
        "|---|---|---|---|",
        *_rows(schema, schema, ""),
    ]
    return "\n".join(lines) + "\n"


def _rows(schema: dict[str, Any], node: dict[str, Any], prefix: str) -> Iterator[str]:
    for name, field in node["properties"].items():
        target = _inner(schema, field)
        if target is None or "default" not in field:
            default = _code(field["default"]) if "default" in field else "required"
        else:
            default = ""
        meaning = field.get("description") or (target or {}).get("description", "")
        yield f"| `{prefix}{name}` | {_allowed(field, target)} | {default} | {meaning} |"
        if target is not None:
            yield from _rows(schema, target, f"{prefix}{name}.")
        for kind, ref in _kinds(field).items():
            yield from _rows(schema, _named(schema, ref), f"{prefix}{name}({kind}).")


def _kinds(field: dict[str, Any]) -> dict[str, str]:
    """Return the branches of a union that `kind` tells apart."""
    for option in [field, *field.get("anyOf", [])]:
        if "discriminator" in option:
            kinds: dict[str, str] = option["discriminator"]["mapping"]
            return kinds
    return {}


def _named(schema: dict[str, Any], ref: str) -> dict[str, Any]:
    found: dict[str, Any] = schema["$defs"][ref.rpartition("/")[2]]
    return found


def _inner(schema: dict[str, Any], field: dict[str, Any]) -> dict[str, Any] | None:
    options = [field, *field.get("anyOf", []), *field.get("allOf", [])]
    refs = [o["$ref"] for o in options if "$ref" in o]
    return _named(schema, refs[0]) if refs else None


def _allowed(field: dict[str, Any], target: dict[str, Any] | None) -> str:
    if "const" in field:
        return _code(field["const"])
    if "enum" in field:
        return " · ".join(_code(v) for v in field["enum"])
    if "anyOf" in field:
        return " or ".join(_allowed(o, target if "$ref" in o else None) for o in field["anyOf"])
    if target is not None or "discriminator" in field:
        return "mapping"
    words = {"minimum": "≥", "maximum": "≤", "exclusiveMinimum": ">"}
    limits = [f"{sign} {field[key]}" for key, sign in words.items() if key in field]
    return ", ".join([field.get("type", ""), *limits])


def _code(value: object) -> str:
    return f"`{json.dumps(value)}`"


def main() -> None:
    """Write the documents."""
    REFERENCE.mkdir(parents=True, exist_ok=True)
    for name, text in documents().items():
        (REFERENCE / name).write_text(text)


if __name__ == "__main__":
    main()
