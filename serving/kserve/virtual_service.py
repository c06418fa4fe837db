"""The VirtualService of a name: `route` for clusters whose gateway is Istio's own.

Istio also speaks Gateway API, and there `route` is the mechanism; this is for clusters that still
route by VirtualServices (networking.istio.io/v1).

**Whether it is routed so cannot be read from it.** Istio writes no status unless it is installed
with `PILOT_ENABLE_STATUS` and more, and its `observedGeneration` is known to lag (istio#31931). So
every answer to users says by which weights it was routed, in a header that the rule itself sets,
and weights count once an answer says them.

Rules are tried in their order, unlike Gateway API's: those that name a version come first. None has
a timeout: Istio's default is none, and its definition refuses zero.
"""

from __future__ import annotations

from collections.abc import Mapping

from serving.cluster import Object
from serving.headers import SERVICE, WEIGHTS
from serving.kserve.facts import PREDICTOR_PORT, Facts
from serving.manifests import NAME

_SUFFIX = "-predictor"
_RETRIES = {"attempts": 2, "retryOn": "connect-failure,refused-stream"}
"""Only what no engine can have seen is sent again; Istio's default also hides a version's 503s."""


def virtual_service(name: str, weights: Mapping[str, int], facts: Facts) -> Object:
    """Return the VirtualService that splits a name's traffic.

    Args:
        name: What clients call the model; they reach it at `facts.gateway.hostnames`.
        weights: InferenceService to share, in percent; one at 0 stays listed.
        facts: The cluster.
    """
    gateway = facts.gateway
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": {"name": name, "namespace": facts.namespace, "labels": {NAME: name}},
        "spec": {
            "hosts": gateway.hostnames(name, facts.namespace),
            "gateways": [f"{gateway.namespace}/{gateway.name}"],
            "http": _rules(weights, facts.namespace),
        },
    }


def with_weights(obj: Object, weights: Mapping[str, int]) -> Object:
    """Return the VirtualService with other shares, and everything else as it is."""
    rules = _rules(weights, obj["metadata"]["namespace"])
    return {**obj, "spec": {**obj["spec"], "http": rules}}


def weights_of(obj: Object) -> dict[str, int]:
    """Return InferenceService to share, where all of users' rules agree; else nothing."""
    first, *others = [
        {_version(each): int(each.get("weight", 100)) for each in rule.get("route", [])}
        for rule in obj["spec"].get("http", [])
        if not any(match.get("headers") for match in rule.get("match", []))
    ] or [{}]
    return first if all(other == first for other in others) else {}


def carries(obj: Object) -> bool:
    """Return whether a VirtualService leads to InferenceServices only."""
    hosts = [
        each["destination"]["host"].partition(".")[0]
        for rule in obj["spec"].get("http", [])
        for each in rule.get("route", [])
    ]
    return bool(hosts) and all(host.endswith(_SUFFIX) for host in hosts)


def observed(obj: Object, answered: str | None) -> dict[str, int]:
    """Return the shares that the gateway routes by; nothing while it routes by others.

    Args:
        obj: The VirtualService.
        answered: What an answer of the gateway says of itself in `serving.headers.WEIGHTS`.
    """
    weights = weights_of(obj)
    return weights if answered == told(weights) else {}


def told(weights: Mapping[str, int]) -> str:
    """Return shares as the header has them."""
    return ",".join(f"{service}={weights[service]}" for service in sorted(weights))


def _rules(weights: Mapping[str, int], namespace: str) -> list[Object]:
    alone = [
        {
            "match": [{"headers": {SERVICE.lower(): {"exact": service}}}],
            "route": [_to(service, namespace)],
            "retries": _RETRIES,
        }
        for service in sorted(weights)
    ]
    everybody = {
        "route": [
            {**_to(service, namespace), "weight": weights[service]} for service in sorted(weights)
        ],
        "headers": {"response": {"set": {WEIGHTS.lower(): told(weights)}}},
        "retries": _RETRIES,
    }
    return [*alone, everybody]


def _to(service: str, namespace: str) -> Object:
    host = f"{service}{_SUFFIX}.{namespace}.svc.cluster.local"
    return {"destination": {"host": host, "port": {"number": PREDICTOR_PORT}}}


def _version(route: Object) -> str:
    host: str = route["destination"]["host"]
    return host.partition(".")[0].removesuffix(_SUFFIX)
