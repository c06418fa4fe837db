"""What a pod asks for: a resource, the nodes that have it, and their taints."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from penstock.core.hardware import ACCELERATORS
from penstock.core.replica import Hardware
from serving.cluster import Object
from serving.gpus.offers import AMD, NVIDIA, SHARED, STRATEGY, Offer, suitable


@dataclass(frozen=True, slots=True)
class Ask:
    """Devices of one pod."""

    resource: str = ""
    """Empty: no devices."""

    count: int = 0
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Label of a node → what it may say."""

    tolerated: str = ""
    """Taint that closes nodes with devices to everybody else; empty: none is tolerated."""

    nodes: int = 1
    """Pods of one replica; where nodes have room for two, they may share one."""

    def to_object(self) -> Object:
        """Return the fields of the pod that say where it may run."""
        fields: Object = {}
        if self.labels:
            wanted = [
                {"key": key, "operator": "In", "values": list(values)}
                for key, values in sorted(self.labels.items())
            ]
            terms = {"nodeSelectorTerms": [{"matchExpressions": wanted}]}
            required = {"requiredDuringSchedulingIgnoredDuringExecution": terms}
            fields["affinity"] = {"nodeAffinity": required}
        if self.tolerated:
            fields["tolerations"] = [
                {"key": self.tolerated, "operator": "Exists", "effect": "NoSchedule"}
            ]
        return fields


def ask(hardware: Hardware, offers: Iterable[Offer] = ()) -> Ask:
    """Return what one replica asks for.

    Where nodes are labelled, it asks for those whose label is what the spec says. Where none is,
    for the resource alone: a label that nobody sets would keep a pod from every node.

    Args:
        hardware: Of the spec.
        offers: What the cluster's nodes offer; none where they cannot be seen.
    """
    if hardware.accelerator == "cpu":
        return Ask()
    vendor = AMD if ACCELERATORS[hardware.accelerator].vendor == "amd" else NVIDIA
    if hardware.claim == "dra":
        return Ask(tolerated=vendor)  # the claim says the rest
    found = [offer for offer in suitable(offers, hardware) if offer.product]
    if not found:
        resource = _unseen(hardware, vendor)
        return Ask(resource, hardware.per_node, {}, vendor, hardware.nodes)
    if hardware.per_node > 1:  # every layer waits for the devices' exchange
        found = [offer for offer in found if not _in_pairs(offer.product)] or found
    best = max(found, key=lambda offer: (offer.count, offer.resource))
    products = {offer.product for offer in found if offer.resource == best.resource}
    labels = {best.label: tuple(sorted(products))}
    if hardware.sharing != "none":
        labels[STRATEGY] = (hardware.sharing,)
    return Ask(best.resource, hardware.per_node, labels, vendor, hardware.nodes)


def _in_pairs(product: str) -> bool:
    """Return whether NVLink joins two of a product's devices at most, by a bridge, or four."""
    return bool({"PCIE", "NVL"} & set(re.split(r"[^A-Z0-9]+", product.upper())))


def _unseen(hardware: Hardware, vendor: str) -> str:
    base = f"nvidia.com/mig-{hardware.mig}" if hardware.mig else vendor
    return base if hardware.sharing == "none" else f"{base}{SHARED}"
