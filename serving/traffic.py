"""How a name's traffic is split between its versions: one protocol, one class per mechanism.

Decisions never see a mechanism: they see InferenceService names and shares.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from penstock.core.spec import ModelSpec
from serving.cluster import Cluster, Kind, Object
from serving.manifests import Release, inference_service, route, weights_of


class Traffic(Protocol):
    """The objects that split traffic. All but `enforce` is pure."""

    @property
    def carrier(self) -> Kind:
        """Kind of the object, named as the model, that carries weights and rollout's record."""
        ...

    @property
    def served(self) -> Kind:
        """Kind of the object that serves one version."""
        ...

    def carrying(self, name: str, weights: Mapping[str, int]) -> Object:
        """Return a new carrier.

        Args:
            name: What clients call the model.
            weights: Version's object to share; shares are relative to their sum.
        """
        ...

    def carries(self, obj: Object) -> bool:
        """Return whether an object is a carrier of this mechanism, and of no other."""
        ...

    def weighted(self, obj: Object, weights: Mapping[str, int]) -> Object:
        """Return the carrier with other weights, and everything else as it is."""
        ...

    def weights_of(self, obj: Object) -> dict[str, int]:
        """Return version's object to share, as the carrier has it."""
        ...

    def version(self, spec: ModelSpec, release: Release) -> Object:
        """Return the object that serves one version; it never changes once created."""
        ...

    def budgets(self, version: Object, replicas: int) -> list[Object]:
        """Return what keeps a version's pods from being taken away together; it goes with it.

        Args:
            version: Its object, as it was read.
            replicas: That it has when it borrows and lends none.
        """
        ...

    def claims(self, spec: ModelSpec) -> list[Object]:
        """Return what the pods of every version of a spec refer to; it stays."""
        ...

    def content(self, obj: Object) -> str:
        """Return what tells whether somebody changed a version's object, its share aside.

        On a cluster its replicas aside, too: it may lend some while a rollout goes on.
        """
        ...

    def enforce(self, cluster: Cluster, obj: Object) -> None:
        """Make what routes follow the carrier, where it does not route itself; may be repeated."""
        ...


class LocalTraffic:
    """This machine: the gateway reads the HTTPRoute."""

    carrier: Kind = "HTTPRoute"
    served: Kind = "InferenceService"

    def carrying(self, name: str, weights: Mapping[str, int]) -> Object:
        """Return the HTTPRoute of a name."""
        return route(name, weights)

    def carries(self, obj: Object) -> bool:  # noqa: ARG002 - there is one mechanism here
        """Return that it is one."""
        return True

    def weighted(self, obj: Object, weights: Mapping[str, int]) -> Object:
        """Return the HTTPRoute with other backends."""
        rules = route(obj["metadata"]["name"], weights)["spec"]["rules"]
        return {**obj, "spec": {**obj["spec"], "rules": rules}}

    def weights_of(self, obj: Object) -> dict[str, int]:
        """Return InferenceService to share."""
        return weights_of(obj)

    def version(self, spec: ModelSpec, release: Release) -> Object:
        """Return the InferenceService of one version."""
        return inference_service(spec, release)

    def budgets(self, version: Object, replicas: int) -> list[Object]:  # noqa: ARG002
        """Return nothing: nobody empties this machine."""
        return []

    def claims(self, spec: ModelSpec) -> list[Object]:  # noqa: ARG002
        """Return nothing: processes have no devices."""
        return []

    def content(self, obj: Object) -> str:
        """Return the generation: nothing of an InferenceService ever changes."""
        return str(obj["metadata"].get("generation", 1))

    def enforce(self, cluster: Cluster, obj: Object) -> None:
        """The HTTPRoute routes by itself."""
