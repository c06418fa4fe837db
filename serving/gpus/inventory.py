"""What is free, node by node: whole pods are counted, for a pod's devices lie in one node."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from serving.cluster import Object
from serving.gpus.ask import Ask
from serving.gpus.offers import devices

_CLOSING = ("NoSchedule", "NoExecute")
_ENDED = ("Succeeded", "Failed")


@dataclass(frozen=True, slots=True)
class Node:
    """A node that takes pods."""

    name: str
    labels: Mapping[str, str]
    taints: tuple[str, ...]
    """Keys of those that close it to pods which do not tolerate them."""

    free: Mapping[str, int]
    """Device resource → how many nobody has."""

    def admits(self, wanted: Ask) -> bool:
        """Return whether a pod may run there, if there are devices left."""
        return all(taint == wanted.tolerated for taint in self.taints) and all(
            self.labels.get(key) in values for key, values in wanted.labels.items()
        )


Inventory = tuple[Node, ...]


def inventory_of(nodes: Iterable[Object], pods: Iterable[Object]) -> Inventory:
    """Return what is free on the nodes that take pods.

    A pod holds its devices from when a node was chosen for it until it has ended; one that is being
    removed counts as ended, since it ends by itself and whoever waits for its devices gets them.

    Args:
        nodes: All of them.
        pods: Of all namespaces.
    """
    taken: dict[str, dict[str, int]] = {}
    for pod in pods:
        if not running(pod):
            continue
        held = taken.setdefault(pod["spec"]["nodeName"], {})
        for resource, count in asked(pod["spec"]).items():
            held[resource] = held.get(resource, 0) + count
    found = (_node(node, taken.get(node["metadata"]["name"], {})) for node in nodes if _open(node))
    return tuple(sorted(found, key=lambda node: node.name))


def room(inventory: Inventory, wanted: Ask) -> int:
    """Return how many more replicas would find their devices, each in as many pods as it has."""
    if not wanted.count:
        raise ValueError("a pod without devices: what it needs is not counted here")
    pods = sum(
        max(node.free.get(wanted.resource, 0), 0) // wanted.count
        for node in inventory
        if node.admits(wanted)
    )
    return pods // wanted.nodes


def given_back(inventory: Inventory, resource: str, held: Iterable[tuple[str, int]]) -> Inventory:
    """Return what would be free if some pods gave up what they hold of a resource, by node."""
    more: dict[str, int] = {}
    for node, count in held:
        more[node] = more.get(node, 0) + count
    return tuple(
        replace(
            node,
            free={**node.free, resource: node.free.get(resource, 0) + more.get(node.name, 0)},
        )
        for node in inventory
    )


def asked(pod: Object) -> dict[str, int]:
    """Return the devices that a pod's spec asks for: of its containers, or its greediest first one.

    Init containers end before the others start, so the larger of both is held.
    """
    together: dict[str, int] = {}
    for container in pod.get("containers", []):
        for resource, count in _wanted(container).items():
            together[resource] = together.get(resource, 0) + count
    for container in pod.get("initContainers", []):
        for resource, count in _wanted(container).items():
            together[resource] = max(together.get(resource, 0), count)
    return together


def running(pod: Object) -> bool:
    """Return whether a pod holds devices: it has a node, and neither has ended nor is to end."""
    ended = pod.get("status", {}).get("phase") in _ENDED
    return bool(pod["spec"].get("nodeName")) and not ended and not _leaves(pod)


def _wanted(container: Object) -> dict[str, int]:
    """Return a container's devices; requests and limits of devices are equal."""
    resources = container.get("resources") or {}
    return devices({**resources.get("requests", {}), **resources.get("limits", {})})


def _leaves(pod: Object) -> bool:
    return "deletionTimestamp" in pod["metadata"]


def _open(node: Object) -> bool:
    conditions = node.get("status", {}).get("conditions", [])
    ready = {each["type"]: each["status"] for each in conditions}.get("Ready", "True")
    return not node["spec"].get("unschedulable") and ready == "True"


def _node(node: Object, taken: Mapping[str, int]) -> Node:
    there = devices(node.get("status", {}).get("allocatable", {}))
    taints = node["spec"].get("taints") or []
    return Node(
        node["metadata"]["name"],
        node["metadata"].get("labels", {}),
        tuple(each["key"] for each in taints if each["effect"] in _CLOSING),
        {resource: count - taken.get(resource, 0) for resource, count in there.items()},
    )
