"""What would change on the place where a model is served."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from penstock.core.spec import ModelSpec
    from serving.cluster import Object
    from serving.targets.target import Target


_OF_THE_CHECKPOINT = ("initContainers[", "storageUri", "model.uri", "startupProbe.failureThreshold")
"""What fetches and verifies files, and the time that takes: known when they have been pulled."""


@dataclass(frozen=True, slots=True)
class Running:
    """What serves a name now, compared with what the plan would serve."""

    service: str
    """Empty where nothing does."""

    changes: tuple[str, ...] = ()
    unknown: str = ""
    """Why it is not known."""

    devices: str = ""
    """How the next version would find its devices there; empty: it wants none."""


def compare(target: Target, model: ModelSpec) -> Running:
    """Return how the object of the next version differs from the one that has most traffic.

    The checkpoint's digest and place are not compared: they are known when it has been pulled.

    Args:
        target: Where it is served.
        model: The spec, with what the plan resolved.
    """
    if not target.began:
        return Running("")
    found = _compared(target, model)
    if model.hardware.accelerator == "cpu":
        return found
    return replace(found, devices=_devices(target, model, found.service))


def _devices(target: Target, model: ModelSpec, service: str) -> str:
    from serving.gpus.surge import Refuse

    found = target.surge(model, "the next version", service)
    if not isinstance(found, Refuse):
        return found.told
    return f"{found.reason}: it would be refused; {found.change.partition(chr(10))[0]}"


def _compared(target: Target, model: ModelSpec) -> Running:
    from penstock.core.identity import Digest
    from serving.manifests import ROOT, Release, version_of

    traffic, cluster = target.traffic, target.cluster
    carrier = cluster.get(traffic.carrier, model.name)
    if carrier is None or not traffic.carries(carrier):
        return Running("")
    weights = traffic.weights_of(carrier)
    service = max(weights, key=lambda name: weights[name], default="")
    running = cluster.get(traffic.served, service) if service else None
    if running is None:
        return Running("")
    root = running["metadata"].get("annotations", {}).get(ROOT)
    release = Release(
        version_of(service), _storage(running), Digest.parse(root) if root else Digest.of(b"")
    )
    planned = traffic.version(model, release)
    return Running(service, tuple(differences(running, planned)))


def differences(running: Object, planned: Object) -> Iterator[str]:
    """Yield what differs of what we write; what the cluster added is its own business."""
    there, ours = dict(_flat(running.get("spec"))), dict(_flat(planned.get("spec")))
    for path, value in ours.items():
        if any(word in path for word in _OF_THE_CHECKPOINT):
            continue
        if path not in there:
            yield f"+ {path}: {value}"
        elif there[path] != value:
            yield f"~ {path}: {there[path]} -> {value}"


def _flat(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flat(inner, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list) and not any(isinstance(each, dict) for each in value):
        yield path, " ".join(map(str, value))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _flat(inner, f"{path}[{index}]")
    else:
        yield path, value


def _storage(running: Object) -> str:
    predictor = running.get("spec", {}).get("predictor", {})
    found = predictor.get("model", {}).get("storageUri")
    found = found or running.get("spec", {}).get("model", {}).get("uri")
    return str(found or "file:///unknown")
