"""The part of a Kubernetes API that serving needs; adapters: Kubernetes, and this laptop.

Objects are plain dicts in the shape Kubernetes gives them: `apiVersion`, `kind`,
`metadata.name`, `metadata.resourceVersion`, `spec`, `status`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, Protocol

Object = dict[str, Any]
Kind = Literal["InferenceService", "HTTPRoute", "Lease"]


class Cluster(Protocol):
    """Reads and writes objects of one namespace. Every write is a compare-and-swap."""

    def get(self, kind: Kind, name: str) -> Object | None:
        """Return the object, or None if there is none."""
        ...

    def list(self, kind: Kind) -> list[Object]:
        """Return all objects of a kind, by name."""
        ...

    def create(self, obj: Object) -> Object:
        """Store a new object; `Conflict` if the name is taken. Returns it with its version."""
        ...

    def replace(self, obj: Object) -> Object:
        """Store `obj` over the version it was read at; `Conflict` if that is not current.

        `status` is ignored, as with the Kubernetes subresource.
        """
        ...

    def replace_status(self, obj: Object) -> Object:
        """Like `replace`, but only `status` is written."""
        ...

    def delete(self, kind: Kind, name: str) -> None:
        """Remove the object; removing what is not there does nothing."""
        ...

    def watch(self, kind: Kind, *, timeout_s: float) -> Iterator[Object]:
        """Yield every current object, then each change until `timeout_s` has passed.

        A deleted object comes with `metadata.deletionTimestamp`. Level-triggered: several
        changes of one object may come as one.
        """
        ...
