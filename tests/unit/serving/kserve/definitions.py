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
from tests.cluster.build import GATEWAY_API, ISTIO, KSERVE, KUEUE, PROMETHEUS_OPERATOR

_KSERVE = f"{KSERVE}/config/crd/full"
FILES = {
    "InferenceService": f"{_KSERVE}/serving.kserve.io_inferenceservices.yaml",
    "ServingRuntime": f"{_KSERVE}/serving.kserve.io_servingruntimes.yaml",
    "ClusterServingRuntime": f"{_KSERVE}/serving.kserve.io_clusterservingruntimes.yaml",
    "LLMInferenceServiceConfig": (
        f"{_KSERVE}/llmisvc/serving.kserve.io_llminferenceserviceconfigs.yaml"
    ),
    "LLMInferenceService": f"{_KSERVE}/llmisvc/serving.kserve.io_llminferenceservices.yaml",
    "HTTPRoute": f"{GATEWAY_API}/config/crd/standard/gateway.networking.k8s.io_httproutes.yaml",
    "VirtualService": f"{ISTIO}/kubernetes/customresourcedefinitions.gen.yaml",
    **{
        kind: f"{KUEUE}/config/components/crd/bases/kueue.x-k8s.io_{kind.lower()}s.yaml"
        for kind in ("ClusterQueue", "LocalQueue", "ResourceFlavor")
    },
    "PodMonitor": (
        f"{PROMETHEUS_OPERATOR}/example/prometheus-operator-crd/"
        "monitoring.coreos.com_podmonitors.yaml"
    ),
}
"""Kind → the file of a Go module that defines it."""


@cache
def _modules() -> Path | None:
    try:
        found = subprocess.run(
            ["go", "env", "GOMODCACHE"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return Path(found.stdout.strip())


def of_module(file: str) -> Path:
    """Return a file of a Go module, MODULE@VERSION/PATH; skips where it was never fetched."""
    modules = _modules()
    if modules is None or not (modules / file).is_file():
        module, _, rest = file.partition("@")
        which = f"{module}@{rest.partition('/')[0]}"
        pytest.skip(f"{which} was not fetched: python -m tests.cluster definitions")
    return modules / file


@cache
def definition(kind: str) -> Object:
    """Return the CustomResourceDefinition of a kind."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    text = of_module(FILES[kind]).read_text()
    every: list[Object] = [each for each in yaml.load_all(text, loader) if each]
    return next(each for each in every if each["spec"]["names"]["kind"] == kind)


@cache
def _schema(kind: str, version: str) -> dict[str, Any]:
    versions = {each["name"]: each for each in definition(kind)["spec"]["versions"]}
    assert versions[version]["served"]
    declared = versions[version]["schema"]["openAPIV3Schema"]
    every = {"apiVersion": {}, "kind": {}, "metadata": {"type": "object"}}  # not always declared
    properties = every | declared["properties"]
    schema: dict[str, Any] = closed({**declared, "properties": properties})
    return schema


def closed(schema: Any) -> Any:
    """Return a schema that refuses unknown fields, as the server does with strict validation."""
    if isinstance(schema, list):
        return [closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: closed(value) for key, value in schema.items()}
    known = isinstance(schema.get("properties"), dict) and "type" in schema
    if known and not schema.get("x-kubernetes-preserve-unknown-fields"):
        found.setdefault("additionalProperties", False)
    return found


def mistakes(obj: Object) -> list[str]:
    """Return what an object's definition says against it; skips where there is none."""
    schema = _schema(obj["kind"], obj["apiVersion"].rpartition("/")[2])
    found = jsonschema.Draft7Validator(schema).iter_errors(obj)
    return [f"{'/'.join(map(str, each.absolute_path))}: {each.message[:200]}" for each in found]
