"""The HTTPRoute of a name: who gets which share, and whether a gateway really routes so.

A request that names a version in `X-Penstock-Service` goes to that version alone, whatever its
share: Gateway API prefers the rule that matches more headers. So the replay reaches a candidate at
0 % through the same gateway as users do. Everybody else meets the weights.

**Conversations do not stay on their version here.** What was found in Envoy Gateway v1.8.0:
`sessionPersistence` (experimental channel) becomes Envoy's stateful session filter, which pins a
client to the *pod* whose address the gateway itself wrote into a cookie or header; it cannot read
`X-Penstock-Session`, which the client chooses. OpenAI's clients keep cookies, so one cookie would
bind a whole application, with all its conversations, to one pod. A BackendTrafficPolicy that hashes
that header is no help either: its Maglev table is built without the weights of backends
(`internal/xds/translator/cluster.go`), so it would undo the split. Both are left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from serving.cluster import Object
from serving.headers import SERVICE
from serving.kserve.facts import PREDICTOR_PORT, Facts, Gateway
from serving.manifests import NAME

NO_TIMEOUT = {"request": "0s", "backendRequest": "0s"}
"""Gateway API: zero disables a timeout. Without it Envoy ends a request after 15 seconds, and
KServe's own routes after 60, however well it streams; a stream that is silent for five minutes is
still ended, by Envoy's idle timeout."""

_SUFFIX = "-predictor"
_EVERYTHING: Object = {"matches": [{"path": {"type": "PathPrefix", "value": "/"}}]}


def http_route(name: str, weights: Mapping[str, int], facts: Facts) -> Object:
    """Return the HTTPRoute that splits a name's traffic.

    Args:
        name: What clients call the model; they reach it at `facts.gateway.hostnames`.
        weights: InferenceService to share, relative to their sum; one at 0 stays listed.
        facts: The cluster.
    """
    hostnames = facts.gateway.hostnames(name, facts.namespace)
    return carrying(name, {"hostnames": hostnames, "rules": _rules(weights)}, facts)


def carrying(name: str, spec: Object, facts: Facts) -> Object:
    """Return an HTTPRoute of a name at the users' gateway."""
    gateway = facts.gateway
    parent = {
        "group": "gateway.networking.k8s.io",
        "kind": "Gateway",
        "name": gateway.name,
        "namespace": gateway.namespace,
    }
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": name, "namespace": facts.namespace, "labels": {NAME: name}},
        "spec": {"parentRefs": [parent], **spec},
    }


def for_paths(weights: Mapping[str, int], paths: Iterable[str]) -> list[Object]:
    """Return the rules of a route that shares its hosts with another one, and wins these paths.

    One rule of users for all of them: Gateway API prefers exact paths, whoever's route is older.
    """
    exact = [{"path": {"type": "Exact", "value": path}} for path in paths]
    door = {"matches": [*exact, *_EVERYTHING["matches"]]}
    return rules(weights, _SUFFIX, PREDICTOR_PORT, [door])


def with_weights(route: Object, weights: Mapping[str, int]) -> Object:
    """Return the route with other shares, and everything else as it is."""
    doors = [
        {key: value for key, value in rule.items() if key not in ("backendRefs", "timeouts")}
        for rule in users_rules(route)
    ]
    split = rules(weights, _SUFFIX, PREDICTOR_PORT, doors or [_EVERYTHING])
    return {**route, "spec": {**route["spec"], "rules": split}}


def users_rules(route: Object) -> list[Object]:
    """Return the rules that lead users, and not those that reach a version by its name."""
    return [
        rule
        for rule in route["spec"]["rules"]
        if not any(match.get("headers") for match in rule.get("matches", []))
    ]


def weights_of(route: Object) -> dict[str, int]:
    """Return InferenceService to share, as users meet them: the inverse of `http_route`."""
    return shares(route, _SUFFIX)


def carries(route: Object) -> bool:
    """Return whether an HTTPRoute leads to InferenceServices."""
    return leads_to(route, _SUFFIX)


def observed(route: Object, facts: Facts) -> dict[str, int]:
    """Return the shares that our gateway has taken over; nothing while that is not known.

    The controller says so when it has translated this very generation; the proxies follow within
    a tenth of a second.
    """
    return {} if unobserved(route, facts) else weights_of(route)


def unobserved(route: Object, facts: Facts, *, elsewhere: bool = False) -> str:
    """Return why the route's shares do not hold yet; empty when they do.

    Args:
        route: As it was read.
        facts: The cluster.
        elsewhere: Whether other gateways than users' count, too: KServe's routes are at its own.
    """
    gateway, metadata = facts.gateway, route["metadata"]
    parents = route.get("status", {}).get("parents", [])
    seen = [each for each in parents if elsewhere or _is(each, gateway, metadata)]
    if not seen:
        return f"gateway {gateway.namespace}/{gateway.name} has not looked at it yet"
    return "; ".join(
        reason for parent in seen for reason in _reasons(parent, metadata.get("generation"))
    )


def _is(parent: Mapping[str, Any], gateway: Gateway, metadata: Mapping[str, Any]) -> bool:
    ref = parent["parentRef"]
    where = ref.get("namespace", metadata.get("namespace"))
    return (ref["name"], where) == (gateway.name, gateway.namespace)


def _reasons(parent: Mapping[str, Any], generation: int | None) -> Iterator[str]:
    conditions = {each["type"]: each for each in parent.get("conditions", [])}
    for kind in ("Accepted", "ResolvedRefs"):
        found = conditions.get(kind)
        if found is None:
            yield f"{kind}: not said yet"
        elif found.get("observedGeneration") != generation:
            yield f"{kind}: of generation {found.get('observedGeneration')}, not {generation}"
        elif found["status"] != "True":
            yield f"{kind}: {found.get('reason', '')}: {found.get('message', '')}"


def rules(
    weights: Mapping[str, int], suffix: str, port: int, doors: Iterable[Object]
) -> list[Object]:
    """Return the rules of a route: users' first, then those that reach a version alone.

    Users' rules keep their places for good. Envoy Gateway names Envoy's clusters by a rule's place
    (v1.8.0, `irRouteDestinationName`), and a cluster changes before the routes that lead to it: for
    a moment, users would meet whoever has their old place now, or get a 503 where nobody has.

    Args:
        weights: Version's object to share.
        suffix: What the name of its Service has more.
        port: Of the Services.
        doors: Users' rules without backends: one match each, and filters.
    """
    doors = list(doors)
    everybody = [backend(f"{name}{suffix}", port, weights[name]) for name in sorted(weights)]
    shared = [{**door, "backendRefs": everybody, "timeouts": NO_TIMEOUT} for door in doors]
    alone = [
        {
            **door,
            "matches": [{**match, "headers": [_named(name)]} for match in door["matches"]],
            "backendRefs": [backend(f"{name}{suffix}", port)],
            "timeouts": NO_TIMEOUT,
        }
        for name in sorted(weights)
        for door in doors
    ]
    return [*shared, *alone]


def shares(route: Object, suffix: str) -> dict[str, int]:
    """Return version's object to share, where all of users' rules agree; else nothing."""
    first, *others = [
        {
            ref["name"].removesuffix(suffix): int(ref.get("weight", 1))
            for ref in rule.get("backendRefs", [])
        }
        for rule in users_rules(route)
    ] or [{}]
    return first if all(other == first for other in others) else {}


def leads_to(route: Object, suffix: str) -> bool:
    """Return whether every backend of a route is a Service of this kind."""
    refs = [ref["name"] for rule in route["spec"]["rules"] for ref in rule.get("backendRefs", [])]
    return bool(refs) and all(name.endswith(suffix) for name in refs)


def backend(service: str, port: int, weight: int = 1) -> Object:
    """Return a reference to a Service."""
    return {"group": "", "kind": "Service", "name": service, "port": port, "weight": weight}


def _named(service: str) -> Object:
    return {"type": "Exact", "name": SERVICE, "value": service}


def _rules(weights: Mapping[str, int]) -> list[Object]:
    return rules(weights, _SUFFIX, PREDICTOR_PORT, [_EVERYTHING])
