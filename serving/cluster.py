"""The part of a Kubernetes API that serving needs; adapters: Kubernetes, and this laptop.

Objects are plain dicts in the shape Kubernetes gives them: `apiVersion`, `kind`,
`metadata.name`, `metadata.resourceVersion`, `spec`, `status`. A server may add fields that were
left out (defaults, bookkeeping in `metadata`); it changes none that were written.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, Literal, Protocol

Object = dict[str, Any]
ANY: Mapping[str, str] = MappingProxyType({})
"""Labels that every object has."""

Kind = Literal[
    "InferenceService",
    "LLMInferenceService",
    "LLMInferenceServiceConfig",
    "ServingRuntime",
    "ClusterServingRuntime",
    "HTTPRoute",
    "VirtualService",
    "Gateway",
    "GatewayClass",
    "Lease",
    "ConfigMap",
    "Secret",
    "Service",
    "Pod",
    "Event",
    "Deployment",
    "PodDisruptionBudget",
    "ResourceClaimTemplate",
    "ResourceClaim",
    "ResourceSlice",
    "Node",
    "Namespace",
    "CustomResourceDefinition",
    "TrainJob",
    "TrainingRuntime",
    "LeaderWorkerSet",
]


def labelled(obj: Object, labels: Mapping[str, str]) -> bool:
    """Return whether an object has all these labels."""
    has: Mapping[str, str] = obj["metadata"].get("labels", {})
    return labels.items() <= has.items()


class Cluster(Protocol):
    """Reads and writes objects of one namespace. Every write is a compare-and-swap."""

    def get(self, kind: Kind, name: str) -> Object | None:
        """Return the object, or None if there is none."""
        ...

    def list(self, kind: Kind, *, labels: Mapping[str, str] = ANY) -> list[Object]:
        """Return all objects of a kind, by name: those that have all these labels."""
        ...

    def create(self, obj: Object, *, dry_run: bool = False) -> Object:
        """Store a new object; `Conflict` if the name is taken. Returns it with its version.

        Args:
            obj: What to store; its status is ignored.
            dry_run: Check it, and return it as it would be stored, without storing it.
        """
        ...

    def replace(self, obj: Object, *, dry_run: bool = False) -> Object:
        """Store `obj` over the version it was read at; `Conflict` if that is not current.

        A write that changes nothing may leave the version as it is.

        Args:
            obj: What to store, as it was read or returned, changed; its status is ignored, as
                with the Kubernetes subresource.
            dry_run: Check it, and return it as it would be stored, without storing it.
        """
        ...

    def replace_status(self, obj: Object) -> Object:
        """Like `replace`, but only `status` is written."""
        ...

    def delete(
        self, kind: Kind, name: str, *, read: Object | None = None, foreground: bool = False
    ) -> None:
        """Remove the object; removing what is not there does nothing.

        An object with finalizers stays, with `metadata.deletionTimestamp`, until they are done.

        Args:
            kind: What it is.
            name: Which one.
            read: The object as it was read: `Conflict` if it has changed since, or is another.
            foreground: Keep it until what it owns is gone.
        """
        ...

    def watch(self, kind: Kind, *, timeout_s: float) -> Iterator[Object]:
        """Yield every current object, then each change until `timeout_s` has passed.

        A deleted object comes with `metadata.deletionTimestamp`. Level-triggered: several
        changes of one object may come as one.
        """
        ...
