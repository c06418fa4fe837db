"""The schemas of the objects, from the Go modules that define them; none is shipped here."""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from serving.cluster import Object

_KSERVE = "github.com/kserve/kserve@v0.20.0/config/crd/full"
_FILES = {
    "InferenceService": f"{_KSERVE}/serving.kserve.io_inferenceservices.yaml",
    "ServingRuntime": f"{_KSERVE}/serving.kserve.io_servingruntimes.yaml",
    "ClusterServingRuntime": f"{_KSERVE}/serving.kserve.io_clusterservingruntimes.yaml",
    "LLMInferenceServiceConfig": (
        f"{_KSERVE}/llmisvc/serving.kserve.io_llminferenceserviceconfigs.yaml"
    ),
    "LLMInferenceService": f"{_KSERVE}/llmisvc/serving.kserve.io_llminferenceservices.yaml",
    "HTTPRoute": (
        "sigs.k8s.io/gateway-api@v1.5.1/config/crd/standard/"
        "gateway.networking.k8s.io_httproutes.yaml"
    ),
}
_HOW = (
    "the definitions are not in the Go module cache; get them with: cd tests/cluster/go/kserve && "
    "go mod download github.com/kserve/kserve sigs.k8s.io/gateway-api"
)


@cache
def _modules() -> Path | None:
    try:
        found = subprocess.run(
            ["go", "env", "GOMODCACHE"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return Path(found.stdout.strip())


@cache
def _schema(kind: str, version: str) -> dict[str, Any]:
    modules = _modules()
    path = modules / _FILES[kind] if modules else None
    if path is None or not path.is_file():
        pytest.skip(_HOW)
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    definition = yaml.load(path.read_text(), loader)  # noqa: S506 - a safe loader
    versions = {each["name"]: each for each in definition["spec"]["versions"]}
    assert versions[version]["served"]
    schema: dict[str, Any] = _closed(versions[version]["schema"]["openAPIV3Schema"])
    return schema


def _closed(schema: Any) -> Any:
    """Return a schema that refuses unknown fields, as the server does with strict validation."""
    if isinstance(schema, list):
        return [_closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: _closed(value) for key, value in schema.items()}
    known = isinstance(schema.get("properties"), dict) and "type" in schema
    if known and not schema.get("x-kubernetes-preserve-unknown-fields"):
        closed.setdefault("additionalProperties", False)
    return closed


def mistakes(obj: Object) -> list[str]:
    """Return what an object's definition says against it; skips where there is none."""
    schema = _schema(obj["kind"], obj["apiVersion"].rpartition("/")[2])
    found = jsonschema.Draft7Validator(schema).iter_errors(obj)
    return [f"{'/'.join(map(str, each.absolute_path))}: {each.message[:200]}" for each in found]
