"""The objects Penstock writes, as pure functions of what is to be served.

Field names: KServe `serving.kserve.io/v1beta1`, Gateway API `gateway.networking.k8s.io/v1`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from penstock.core.identity import Digest
from penstock.core.manifest import Manifest
from penstock.core.spec import ModelSpec
from serving.cluster import Object

NAME = "penstock.dev/name"
VERSION = "penstock.dev/version"
ROOT = "penstock.dev/root"
STICKY = "penstock.dev/sticky"
"""On an HTTPRoute: `"false"` splits requests without regard to conversations."""

_GATEWAY = {"name": "kserve-ingress-gateway", "namespace": "kserve"}


@dataclass(frozen=True, slots=True)
class Release:
    """One version of a model, ready to be served."""

    version: int
    """Model version in the registry."""

    storage_uri: str
    """Where the checkpoint's files are."""

    root: Digest
    """Digest of the checkpoint; verified before it is served."""

    manifest: Manifest | None = None
    """Its files, where they are known."""


def service_name(name: str, version: int) -> str:
    """Return the name of a version's InferenceService."""
    return f"{name}-v{version}"


def version_of(service: str) -> int:
    """Return the version that an InferenceService serves: the inverse of `service_name`.

    One that was adopted has no number: 0.
    """
    number = service.rpartition("-v")[2]
    return int(number) if number.isdecimal() else 0


def inference_service(spec: ModelSpec, release: Release) -> Object:
    """Return the InferenceService of one version; it never changes once created."""
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {
            "name": service_name(spec.name, release.version),
            "labels": {NAME: spec.name, VERSION: str(release.version)},
            "annotations": {ROOT: str(release.root)},
        },
        "spec": {
            "predictor": {
                "minReplicas": spec.replicas,
                "maxReplicas": spec.replicas,
                "model": {
                    "modelFormat": {"name": "huggingface"},
                    "runtime": "penstock-cpu",
                    "storageUri": release.storage_uri,
                    "args": [f"--model_name={spec.name}", *spec.runtime_args],
                },
            }
        },
    }


def route(name: str, weights: Mapping[str, int]) -> Object:
    """Return the HTTPRoute that splits a name's traffic.

    Args:
        name: What clients call the model.
        weights: InferenceService to share; shares are relative to their sum.
    """
    backends = [
        {"kind": "Service", "name": service, "port": 80, "weight": weight}
        for service, weight in sorted(weights.items())
    ]
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": name, "labels": {NAME: name}},
        "spec": {"parentRefs": [_GATEWAY], "rules": [{"backendRefs": backends}]},
    }


def weights_of(obj: Object) -> dict[str, int]:
    """Return InferenceService to share, as an HTTPRoute has it."""
    return {
        backend["name"]: int(backend.get("weight", 1))
        for rule in obj["spec"]["rules"]
        for backend in rule["backendRefs"]
    }


def replicas_of(obj: Object) -> int:
    """Return how many processes or pods a version's object asks for."""
    if obj["kind"] == "LLMInferenceService":
        return int(obj["spec"].get("replicas", 1))
    return int(obj["spec"]["predictor"].get("minReplicas", 1))


def scaled(obj: Object, replicas: int) -> Object:
    """Return a version's object with other replicas; its pods stay as they are, but for number."""
    if obj["kind"] == "LLMInferenceService":
        return {**obj, "spec": {**obj["spec"], "replicas": replicas}}
    most = max(replicas, 1)  # KServe takes 0 at most for no limit
    predictor = {**obj["spec"]["predictor"], "minReplicas": replicas, "maxReplicas": most}
    return {**obj, "spec": {**obj["spec"], "predictor": predictor}}


def sticky(obj: Object) -> bool:
    """Return whether an HTTPRoute keeps a conversation on its version; it does unless told."""
    annotations: Mapping[str, str] = obj["metadata"].get("annotations", {})
    return annotations.get(STICKY) != "false"


def ready(obj: Object) -> tuple[bool, str]:
    """Return whether an InferenceService is ready, and the reason when it is not."""
    for condition in obj.get("status", {}).get("conditions", []):
        if condition["type"] == "Ready":
            is_ready = condition["status"] == "True"
            reason = condition.get("message") or condition.get("reason") or ""
            return is_ready, reason or ("" if is_ready else "its controller gives no reason")
    return False, "nothing has looked at it yet: does its controller run?"
