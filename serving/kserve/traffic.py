"""The mechanisms that split traffic on a cluster: `route`, `llmisvc` and `istio`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass

from penstock.core.errors import Conflict
from penstock.core.spec import ModelSpec
from serving.cluster import Cluster, Kind, Object
from serving.gpus import claims
from serving.kserve import budgets, http_route, llm_inference_service, virtual_service
from serving.kserve.facts import Facts
from serving.kserve.inference_service import inference_service
from serving.manifests import NAME, Release, scaled

_ATTEMPTS = 5


@dataclass(frozen=True)
class RouteTraffic:
    """An InferenceService per version, and one HTTPRoute over their Services."""

    facts: Facts
    carrier: Kind = "HTTPRoute"
    served: Kind = "InferenceService"

    def carrying(self, name: str, weights: Mapping[str, int]) -> Object:
        """Return the HTTPRoute of a name."""
        return http_route.http_route(name, weights, self.facts)

    def carries(self, obj: Object) -> bool:
        """Return whether it is an HTTPRoute over InferenceServices."""
        return http_route.carries(obj)

    def weighted(self, obj: Object, weights: Mapping[str, int]) -> Object:
        """Return the HTTPRoute with other weights."""
        return http_route.with_weights(obj, weights)

    def weights_of(self, obj: Object) -> dict[str, int]:
        """Return InferenceService to share."""
        return http_route.weights_of(obj)

    def version(self, spec: ModelSpec, release: Release) -> Object:
        """Return the InferenceService of one version."""
        return inference_service(spec, release, self.facts, release.manifest)

    def budgets(self, version: Object, replicas: int) -> list[Object]:
        """Return its PodDisruptionBudget."""
        return budgets.of(version, replicas)

    def claims(self, spec: ModelSpec) -> list[Object]:
        """Return the template of its pods' claims."""
        return claims.templates(spec.hardware)

    def content(self, obj: Object) -> str:
        """Return a digest of all but the replicas, which a version may lend for a while."""
        return _digest(scaled(obj, 0)["spec"])

    def enforce(self, cluster: Cluster, obj: Object) -> None:
        """The HTTPRoute routes by itself."""


@dataclass(frozen=True)
class IstioTraffic(RouteTraffic):
    """As `RouteTraffic`, with a VirtualService over the Services."""

    carrier: Kind = "VirtualService"

    def carrying(self, name: str, weights: Mapping[str, int]) -> Object:
        """Return the VirtualService of a name."""
        return virtual_service.virtual_service(name, weights, self.facts)

    def carries(self, obj: Object) -> bool:
        """Return whether it is a VirtualService over InferenceServices."""
        return virtual_service.carries(obj)

    def weighted(self, obj: Object, weights: Mapping[str, int]) -> Object:
        """Return the VirtualService with other weights."""
        return virtual_service.with_weights(obj, weights)

    def weights_of(self, obj: Object) -> dict[str, int]:
        """Return InferenceService to share."""
        return virtual_service.weights_of(obj)


@dataclass(frozen=True, slots=True)
class LlmTraffic:
    """An LLMInferenceService per version, in one group, and one HTTPRoute of ours over them.

    Ours carries the weights with the record, in one write; the group's own weights follow it.
    """

    facts: Facts
    carrier: Kind = "HTTPRoute"
    served: Kind = "LLMInferenceService"

    def carrying(self, name: str, weights: Mapping[str, int]) -> Object:
        """Return our HTTPRoute of a name."""
        return llm_inference_service.http_route(name, weights, self.facts)

    def carries(self, obj: Object) -> bool:
        """Return whether it is an HTTPRoute over LLMInferenceServices."""
        return llm_inference_service.carries(obj)

    def weighted(self, obj: Object, weights: Mapping[str, int]) -> Object:
        """Return our HTTPRoute with other weights."""
        return llm_inference_service.with_weights(obj, weights, self.facts)

    def weights_of(self, obj: Object) -> dict[str, int]:
        """Return LLMInferenceService to share."""
        return llm_inference_service.weights_of(obj)

    def version(self, spec: ModelSpec, release: Release) -> Object:
        """Return the LLMInferenceService of one version, without a share."""
        return llm_inference_service.llm_inference_service(
            spec, release, 0, self.facts, release.manifest
        )

    def budgets(self, version: Object, replicas: int) -> list[Object]:
        """Return its PodDisruptionBudget."""
        return budgets.of(version, replicas)

    def claims(self, spec: ModelSpec) -> list[Object]:
        """Return the template of its pods' claims."""
        return claims.templates(spec.hardware)

    def content(self, obj: Object) -> str:
        """Return a digest of all but share and replicas."""
        return _digest(scaled(llm_inference_service.with_weight(obj, 0), 0)["spec"])

    def enforce(self, cluster: Cluster, obj: Object) -> None:
        """Give every member of the group its weight, those that gain first; others get nothing."""
        name, wanted = obj["metadata"]["name"], self.weights_of(obj)
        members = [
            member["metadata"]["name"]
            for member in cluster.list("LLMInferenceService")
            if member["metadata"].get("labels", {}).get(NAME) == name
        ]
        for member in sorted(members, key=lambda each: -wanted.get(each, 0)):
            _give(cluster, member, wanted.get(member, 0))


MECHANISMS: Mapping[str, type[RouteTraffic | LlmTraffic]] = {
    "route": RouteTraffic,
    "istio": IstioTraffic,
    "llmisvc": LlmTraffic,
}
"""`target.kserve.mode` to what splits traffic so."""


def _give(cluster: Cluster, service: str, weight: int) -> None:
    """Give a member its weight; if others write all the time, another look does it."""
    for _ in range(_ATTEMPTS):
        member = cluster.get("LLMInferenceService", service)
        if member is None or llm_inference_service.weight_of(member) == weight:
            return
        try:
            cluster.replace(llm_inference_service.with_weight(member, weight))
        except Conflict:
            continue  # its controller wrote meanwhile
        return


def _digest(spec: Object) -> str:
    return hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()[:12]
