"""What the API's schemas say about installed objects: Kubernetes' own, and definitions'."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import jsonschema

from serving.cluster import Object
from tests.cluster.build import KUBERNETES
from tests.unit.serving.kserve import definitions

_OPENAPI = f"{KUBERNETES}/api/openapi-spec/v3"


def mistakes(obj: Object) -> list[str]:
    """Return what its schema says against an object; skips where the schema was never fetched."""
    if obj["kind"] in definitions.FILES:
        return definitions.mistakes(obj)
    found = _validator(obj["apiVersion"], obj["kind"]).iter_errors(obj)
    return [f"{'/'.join(map(str, each.absolute_path))}: {each.message[:200]}" for each in found]


@cache
def _validator(api_version: str, kind: str) -> jsonschema.Draft7Validator:
    group, _, version = api_version.rpartition("/")
    file = f"apis__{group}__{version}" if group else f"api__{version}"
    document = json.loads(definitions.of_module(f"{_OPENAPI}/{file}_openapi.json").read_text())
    schemas: dict[str, Any] = definitions.closed(document["components"]["schemas"])
    wanted = {"group": group, "kind": kind, "version": version}
    (name,) = (
        name
        for name, schema in schemas.items()
        if wanted in schema.get("x-kubernetes-group-version-kind", [])
    )
    own = {"allOf": [{"$ref": f"#/components/schemas/{name}"}]}
    return jsonschema.Draft7Validator({**own, "components": {"schemas": schemas}})
