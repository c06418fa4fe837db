"""One way to count devices, whether pods ask for a resource or make a claim."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from penstock.core.replica import Hardware
from serving.cluster import Object
from serving.gpus import claims
from serving.gpus.ask import Ask, ask
from serving.gpus.inventory import Inventory, asked, running
from serving.gpus.offers import Offer


def with_claims(inventory: Inventory, free: Mapping[str, int]) -> Inventory:
    """Return the nodes with what a claim could get there, instead of a plugin's devices."""
    return tuple(replace(node, free={claims.NAME: free.get(node.name, 0)}) for node in inventory)


@dataclass(frozen=True, slots=True)
class Devices:
    """What devices are free, for pods of one kind of hardware."""

    inventory: Inventory
    hardware: Hardware

    def wanted(self, offers: Iterable[Offer]) -> Ask:
        """Return what one pod asks for, as the inventory counts it."""
        found = ask(self.hardware, offers)
        return (
            replace(found, resource=claims.NAME, count=self.hardware.count)
            if self._claimed
            else found
        )

    def held(self, pods: Iterable[Object], wanted: Ask) -> tuple[tuple[str, int], ...]:
        """Return for each running pod its node, and the devices that it has."""
        return tuple(
            (pod["spec"]["nodeName"], self._of(pod, wanted)) for pod in pods if running(pod)
        )

    def _of(self, pod: Object, wanted: Ask) -> int:
        if self._claimed:
            return claims.held(pod["spec"], self.hardware)
        return asked(pod["spec"]).get(wanted.resource, 0)

    @property
    def _claimed(self) -> bool:
        return self.hardware.claim == "dra"
