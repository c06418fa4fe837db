"""What nodes offer, in the words of those who label them.

Sources, read 2026-11-28: NVIDIA k8s-device-plugin, docs/gpu-feature-discovery/README.md (labels,
MIG strategies), README.md (time-slicing, MPS, `.shared`, `-SHARED`) and internal/lm/resource.go
(every resource has its own `<resource>.product`, `.count`, `.memory`); ROCm k8s-device-plugin,
cmd/k8s-node-labeller/README.md (product-name, vram).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from penstock.core.hardware import ACCELERATORS
from penstock.core.replica import Hardware
from serving.cluster import Object

NVIDIA, AMD = "nvidia.com/gpu", "amd.com/gpu"
SHARED = ".shared"
"""Ends the name of a resource that a device plugin shares under a name of its own."""

STRATEGY = f"{NVIDIA}.sharing-strategy"

_DEVICES = re.compile(r"^(nvidia\.com/gpu|nvidia\.com/mig-[\w.+]+?|amd\.com/gpu)(\.shared)?$")
_NEAR = 0.1
"""Labels tell what the driver sees: 23,034 MiB of an L4's 24 GiB."""


@dataclass(frozen=True, slots=True, order=True)
class Offer:
    """One kind of device that some nodes have."""

    resource: str
    """As pods ask for it."""

    product: str = ""
    """As nodes are labelled; empty where nobody labels them."""

    memory_mib: int = 0
    """Of one device; 0: not known."""

    sharing: str = "none"
    count: int = 0
    """The most that one node has."""

    @property
    def label(self) -> str:
        """The label that names the product."""
        return product_label(self.resource)


def product_label(resource: str) -> str:
    """Return the node label that names the product of a resource."""
    base = resource.removesuffix(SHARED)
    return f"{base}.product-name" if base == AMD else f"{base}.product"


def offers_of(nodes: Iterable[Object]) -> tuple[Offer, ...]:
    """Return what nodes offer, each kind once; closed nodes offer nothing."""
    most: dict[Offer, int] = {}
    for node in nodes:
        if node["spec"].get("unschedulable"):
            continue
        for found in _of(node):
            kind = replace(found, count=0)
            most[kind] = max(most.get(kind, 0), found.count)
    return tuple(sorted(replace(kind, count=count) for kind, count in most.items()))


def suitable(offers: Iterable[Offer], hardware: Hardware) -> tuple[Offer, ...]:
    """Return the offers that are what a spec asks for; unlabelled ones count if they may be."""
    return tuple(offer for offer in offers if _suits(offer, hardware))


def devices(amounts: Mapping[str, str]) -> dict[str, int]:
    """Return the devices among resources, by resource: of a node, or of a container."""
    return {name: int(amount) for name, amount in amounts.items() if _DEVICES.match(name)}


def is_product(text: str, accelerator: str) -> bool:
    """Return whether somebody's name for a device means an accelerator; memory is not looked at."""
    family = ACCELERATORS[accelerator].family
    return family in re.split(r"[^A-Z0-9]+", text.upper())


def _of(node: Object) -> Iterator[Offer]:
    labels = node["metadata"].get("labels", {})
    for resource, count in devices(node.get("status", {}).get("allocatable", {})).items():
        if count == 0:  # a plugin that has gone leaves its resource there
            continue
        product = labels.get(product_label(resource), "")
        yield Offer(resource, product, _memory(labels, resource), _sharing(labels, resource), count)


def _memory(labels: Mapping[str, str], resource: str) -> int:
    if resource == AMD:
        found = re.fullmatch(r"(\d+)G", labels.get(f"{AMD}.vram", ""))
        return int(found[1]) * 1024 if found else 0
    text = labels.get(f"{resource.removesuffix(SHARED)}.memory", "")
    return int(text) if text.isdigit() else 0


def _sharing(labels: Mapping[str, str], resource: str) -> str:
    """Return how a resource is shared: a node's strategy is that of some of its resources."""
    base = resource.removesuffix(SHARED)
    many = labels.get(f"{base}.replicas", "1") not in ("0", "1")
    shared = base != resource or many or labels.get(f"{base}.product", "").endswith("-SHARED")
    if base == AMD or not shared:
        return "none"
    told = labels.get(STRATEGY, "none")
    return "time-slicing" if told == "none" else told


def _suits(offer: Offer, hardware: Hardware) -> bool:
    base, product = offer.resource.removesuffix(SHARED), offer.product
    gpu = ACCELERATORS[hardware.accelerator]
    if offer.sharing != hardware.sharing or gpu.vendor != base.partition(".")[0]:
        return False
    if base.startswith("nvidia.com/mig-"):
        named = base == f"nvidia.com/mig-{hardware.mig}"
        return named and (not product or is_product(product, gpu.name))
    if hardware.mig:  # all of a node is divided alike, and the product says how
        parted = f"-MIG-{hardware.mig}" in product.removesuffix("-SHARED")
        return parted and is_product(product, gpu.name)
    if "-MIG-" in product:
        return False
    near = abs(offer.memory_mib / 1024 - gpu.memory_gib) <= _NEAR * gpu.memory_gib
    return not product or (is_product(product, gpu.name) and (near or not offer.memory_mib))
