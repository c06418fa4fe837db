"""Devices by dynamic resource allocation: a ResourceClaimTemplate per kind and number of devices.

Sources, read 2026-11-28: Kubernetes 1.34, `resource.k8s.io/v1`; NVIDIA k8s-dra-driver-gpu,
cmd/gpu-kubelet-plugin/deviceinfo.go (attributes productName and profile, capacity memory, of driver
gpu.nvidia.com), and its classes gpu.nvidia.com and mig.nvidia.com. NVIDIA's only: AMD's driver has
other attributes.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable

from penstock.core.hardware import ACCELERATORS
from penstock.core.replica import Hardware
from serving.cluster import Object
from serving.gpus.offers import is_product

DRIVER = "gpu.nvidia.com"
NAME = "devices"
"""Of the claim inside a pod."""

_UNITS = {"": 1, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}
_BAND = (9, 11)
"""Tenths of the memory that an accelerator's name says, least and most."""


def template(hardware: Hardware) -> Object:
    """Return the template of every pod with this hardware; its name tells its content.

    Versions share it and nobody owns it, so that one that is made again finds it.
    """
    request = {
        "name": NAME,
        "exactly": {
            "deviceClassName": "mig.nvidia.com" if hardware.mig else DRIVER,
            "allocationMode": "ExactCount",
            "count": hardware.count,
            "selectors": [{"cel": {"expression": _expression(hardware)}}],
        },
    }
    spec: Object = {"spec": {"devices": {"requests": [request]}}}
    digest = hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()[:8]
    return {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceClaimTemplate",
        "metadata": {"name": f"penstock-{hardware.accelerator}-{digest}"},
        "spec": spec,
    }


def templates(hardware: Hardware) -> list[Object]:
    """Return what pods with this hardware refer to: nothing where a plugin hands devices out."""
    return [template(hardware)] if hardware.claim == "dra" else []


def of_pod(hardware: Hardware) -> Object:
    """Return the fields of the pod that make a claim from the template."""
    name = template(hardware)["metadata"]["name"]
    return {"resourceClaims": [{"name": NAME, "resourceClaimTemplateName": name}]}


def of_container() -> Object:
    """Return what gives the pod's devices to its engine, beside `requests` and `limits`."""
    return {"claims": [{"name": NAME}]}


def free(slices: Iterable[Object], claims: Iterable[Object], hardware: Hardware) -> dict[str, int]:
    """Return node → devices that a claim of this hardware could get and nobody has.

    Args:
        slices: Every ResourceSlice.
        claims: Every ResourceClaim, of all namespaces.
        hardware: What is asked for.
    """
    taken = {
        (result["driver"], result["pool"], result["device"])
        for claim in claims
        for result in _results(claim)
    }
    found: dict[str, int] = {}
    for each in slices:
        spec = each["spec"]
        node = spec.get("nodeName", "")
        if spec["driver"] != DRIVER or not node:
            continue
        for device in spec.get("devices", []):
            if not _matches(device, hardware):
                continue
            is_free = (DRIVER, spec["pool"]["name"], device["name"]) not in taken
            found[node] = found.get(node, 0) + is_free
    return found


def held(pod: Object, hardware: Hardware) -> int:
    """Return the devices that a pod has by a claim of this hardware."""
    name = template(hardware)["metadata"]["name"]
    made = [each.get("resourceClaimTemplateName") for each in pod.get("resourceClaims") or []]
    return hardware.count if name in made else 0


def _results(claim: Object) -> list[Object]:
    allocation = claim.get("status", {}).get("allocation") or {}
    results: list[Object] = allocation.get("devices", {}).get("results", [])
    return results


def _expression(hardware: Hardware) -> str:
    """Return CEL: the product as a whole word, and the profile, or the memory within a tenth."""
    gpu, of = ACCELERATORS[hardware.accelerator], f'["{DRIVER}"]'
    product = f"device.attributes{of}.productName.lowerAscii()"
    word = f'{product}.matches("(^|[^a-z0-9]){gpu.family.lower()}([^a-z0-9]|$)")'
    if hardware.mig:
        return f'{word} && device.attributes{of}.profile == "{hardware.mig}"'
    least, most = (gpu.memory_gib * 1024 * tenths // 10 for tenths in _BAND)
    memory = f"device.capacity{of}.memory"
    return (
        f'{word} && {memory}.compareTo(quantity("{least}Mi")) >= 0 && '
        f'{memory}.compareTo(quantity("{most}Mi")) <= 0'
    )


def _matches(device: Object, hardware: Hardware) -> bool:
    """Return what `_expression` says of a device."""
    attributes = device.get("attributes", {})
    product = attributes.get("productName", {}).get("string", "")
    if not is_product(product, hardware.accelerator):
        return False
    if hardware.mig:
        profile: str = attributes.get("profile", {}).get("string", "")
        return profile == hardware.mig
    if attributes.get("type", {}).get("string") != "gpu":
        return False
    memory = _mib(device.get("capacity", {}).get("memory", {}).get("value", "0"))
    gib = ACCELERATORS[hardware.accelerator].memory_gib
    least, most = (gib * 1024 * tenths // 10 for tenths in _BAND)
    return least <= memory <= most


def _mib(quantity: str) -> float:
    found = re.fullmatch(r"(\d+)(Ki|Mi|Gi|Ti)?", str(quantity))
    if found is None:
        return 0.0
    return int(found[1]) * _UNITS[found[2] or ""] / 2**20
