"""The two mechanisms that split traffic on a cluster: `route` and `llmisvc`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass

from penstock.core.errors import Conflict
from penstock.core.spec import ModelSpec
from serving.cluster import Cluster, Kind, Object
from serving.kserve import http_route, llm_inference_service
from serving.kserve.facts import Facts
from serving.kserve.inference_service import inference_service
from serving.manifests import Release, ready

WEIGHTS = "penstock.dev/weights"
"""On the HTTPRoute of `llmisvc`: the shares that the members are to have."""

_ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class RouteTraffic:
    """An InferenceService per version, and one HTTPRoute over their Services."""

    facts: Facts
    carrier: Kind = "HTTPRoute"
    served: Kind = "InferenceService"

    def carrying(self, name: str, weights: Mapping[str, int]) -> Object:
        """Return the HTTPRoute of a name."""
        return http_route.http_route(name, weights, self.facts)

    def carries(self, obj: Object) -> bool:
        """Return whether it is an HTTPRoute that splits by itself."""
        return WEIGHTS not in obj["metadata"].get("annotations", {})

    def weighted(self, obj: Object, weights: Mapping[str, int]) -> Object:
        """Return the HTTPRoute with other weights."""
        return http_route.with_weights(obj, weights)

    def weights_of(self, obj: Object) -> dict[str, int]:
        """Return InferenceService to share."""
        return http_route.weights_of(obj)

    def version(self, spec: ModelSpec, release: Release) -> Object:
        """Return the InferenceService of one version."""
        return inference_service(spec, release, self.facts, release.manifest)

    def content(self, obj: Object) -> str:
        """Return the generation: nothing of an InferenceService ever changes."""
        return str(obj["metadata"].get("generation", 1))

    def enforce(self, cluster: Cluster, obj: Object) -> None:
        """The HTTPRoute routes by itself."""


@dataclass(frozen=True, slots=True)
class LlmTraffic:
    """An LLMInferenceService per version, in one group; KServe writes the routes.

    No object carries all weights, so an HTTPRoute of ours carries what they are to be, with the
    record, in one write; the members follow it. It also leads replays to a version alone.
    """

    facts: Facts
    carrier: Kind = "HTTPRoute"
    served: Kind = "LLMInferenceService"

    def carrying(self, name: str, weights: Mapping[str, int]) -> Object:
        """Return our HTTPRoute of a name."""
        return self.weighted(http_route.http_route(name, {}, self.facts), weights)

    def carries(self, obj: Object) -> bool:
        """Return whether it is an HTTPRoute that members follow."""
        return WEIGHTS in obj["metadata"].get("annotations", {})

    def weighted(self, obj: Object, weights: Mapping[str, int]) -> Object:
        """Return our HTTPRoute with other weights."""
        metadata = obj["metadata"]
        text = json.dumps(dict(sorted(weights.items())))
        annotations = {**metadata.get("annotations", {}), WEIGHTS: text}
        rules = llm_inference_service.alone(weights)
        return {
            **obj,
            "metadata": {**metadata, "annotations": annotations},
            "spec": {**obj["spec"], "rules": rules},
        }

    def weights_of(self, obj: Object) -> dict[str, int]:
        """Return LLMInferenceService to share."""
        found: dict[str, int] = json.loads(obj["metadata"].get("annotations", {})[WEIGHTS])
        return found

    def version(self, spec: ModelSpec, release: Release) -> Object:
        """Return the LLMInferenceService of one version, without a share."""
        return llm_inference_service.llm_inference_service(
            spec, release, 0, self.facts, release.manifest
        )

    def content(self, obj: Object) -> str:
        """Return a digest of all but the share."""
        spec = llm_inference_service.with_weight(obj, 0)["spec"]
        return hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()[:12]

    def enforce(self, cluster: Cluster, obj: Object) -> None:
        """Give every member its weight; nothing only when those that gain have theirs.

        A write makes a member not ready for a moment, and KServe leaves it out of the routes
        meanwhile (v0.20.0, `filterEligibleMembers`): if the others had nothing then, users would
        get an empty 500. So this must be called until the shares are observed.
        """
        wanted = self.weights_of(obj)
        given = [_give(cluster, each, wanted[each]) for each in sorted(wanted) if wanted[each]]
        if all(given):
            for service in sorted(wanted):
                _give(cluster, service, wanted[service])


def _give(cluster: Cluster, service: str, weight: int) -> bool:
    """Give a member its weight; return whether it had it already, and is ready."""
    for _ in range(_ATTEMPTS):
        member = cluster.get("LLMInferenceService", service)
        if member is None:
            return False
        if llm_inference_service.weight_of(member) == weight:
            return ready(member)[0]
        try:
            cluster.replace(llm_inference_service.with_weight(member, weight))
        except Conflict:
            continue  # its controller wrote meanwhile
        return False
    return False
