"""A name's stable version is given back: an InferenceService and an HTTPRoute of nobody. Pure.

Users' hosts keep their way. An adopted version that KServe still routes by itself needs nothing
but ours removed. Any other gets an HTTPRoute of its own first, for the same hosts and paths; while
both are there, both lead to it. **Ours goes last**: whatever fails before, users do not notice.

The InferenceService loses Penstock's labels and annotations. KServe passes that on to its pods and
replaces them one after the other; what it is told in KServe's own words (no autoscaler,
`cluster-local`) stays, or more than names would change. Penstock's runtime and init container stay
too: it could not start again without them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from penstock.core.errors import ConfigurationError
from serving.adoption.adopt import ADOPTED
from serving.adoption.closing import closed, is_closed, opened
from serving.adoption.writes import Verb, Write
from serving.cluster import Object
from serving.controller import record_of
from serving.kserve import http_route
from serving.manifests import NAME
from serving.targets.configmaps import KEPT

_OURS = "penstock.dev/"
_USERS = "-users"


@dataclass(frozen=True, slots=True)
class Around:
    """What is there."""

    carrier: Object | None
    """The name's HTTPRoute."""

    versions: tuple[Object, ...]
    """Every InferenceService of the namespace."""

    routes: tuple[Object, ...]
    """Every HTTPRoute."""

    kept: tuple[Object, ...]
    """Every ConfigMap."""

    lease: Object | None
    """The rollout's."""


def leave(around: Around, name: str) -> list[Write]:
    """Return what is to be written; nothing where nothing of Penstock's is left.

    Args:
        around: What is there.
        name: What clients call the model.

    Raises:
        ConfigurationError: Who serves it is not settled, with the reason.
    """
    left = list(_left(around, name))
    if around.carrier is None:
        return left
    carrier = opened(around.carrier)
    stable = _stable(around, carrier, name)
    way = _own_way(around, carrier, stable)
    return [way, *_plain(stable), *left, *_ending(around.carrier, way.obj)]


def _stable(around: Around, carrier: Object, name: str) -> Object:
    """Return the InferenceService that has all traffic, alone."""
    record, shares = record_of(carrier), http_route.weights_of(carrier)
    if record is not None and not record.over:
        raise ConfigurationError(
            f"{name}: a rollout of {record.candidate} goes on",
            hint=f"penstock rollout promote {name}, or rollback; then leave",
        )
    with_traffic = [service for service, share in shares.items() if share]
    if len(with_traffic) != 1:
        raise ConfigurationError(
            f"{name}: not one version has all traffic: {shares or 'its rules disagree'}",
            hint=f"kubectl edit httproute {name}: 100 for the one that stays",
        )
    there = {obj["metadata"]["name"]: obj for obj in around.versions}
    others = sorted(o for o, obj in there.items() if _of(obj, name) and o not in with_traffic)
    if others:
        raise ConfigurationError(
            f"{name}: {', '.join(others)} {'is' if len(others) == 1 else 'are'} still there, "
            "without traffic",
            hint=f"penstock controller --once removes losers; or: kubectl delete isvc {others[0]}",
        )
    if with_traffic[0] not in there:
        raise ConfigurationError(
            f"{name}: its route leads to {with_traffic[0]}, which is not there",
            hint="there is nothing to give back: kubectl delete httproute " + name,
        )
    return there[with_traffic[0]]


def _own_way(around: Around, carrier: Object, stable: Object) -> Write:
    """Return what gives users another way to the version, before ours is gone."""
    service = stable["metadata"]["name"]
    there = {obj["metadata"]["name"]: obj for obj in around.routes}
    if carrier["metadata"].get("annotations", {}).get(ADOPTED) == service:
        own = there.get(service)
        if own is not None and own["metadata"]["name"] != carrier["metadata"]["name"]:
            return Write("see", own, "KServe's own, as before it was adopted", routed=True)
    route = _users_route(carrier, service)
    found = there.get(route["metadata"]["name"])
    if found is not None:
        return Write("see", found, f"leads users to {service}", routed=True)
    return Write("create", route, f"leads users to {service}, for the same hosts", routed=True)


def _ending(carrier: Object, way: Object) -> Iterator[Write]:
    """Yield the last writes; the first says which hosts only ours had."""
    hosts = way["spec"].get("hostnames", [])
    ended = [host for host in carrier["spec"].get("hostnames", []) if host not in hosts]
    told = f"; nobody answers to {', '.join(ended)} any more" if ended else ""
    led = f"{way['metadata']['name']} leads users from now on{told}"
    verb: Verb = "see" if is_closed(carrier) else "replace"
    yield Write(verb, closed(carrier), led, routed=True)
    yield Write("delete", carrier, "leads nobody any more")


def _users_route(carrier: Object, service: str) -> Object:
    """Return an HTTPRoute that leads users to one version, with nothing of ours in it."""
    alone = http_route.with_weights(carrier, {service: 100})
    metadata: Object = {"name": f"{service}{_USERS}"}
    if "namespace" in carrier["metadata"]:
        metadata["namespace"] = carrier["metadata"]["namespace"]
    return {
        "apiVersion": carrier["apiVersion"],
        "kind": carrier["kind"],
        "metadata": metadata,
        "spec": {**alone["spec"], "rules": http_route.users_rules(alone)},
    }


def _plain(stable: Object) -> Iterator[Write]:
    """Yield what takes Penstock's words off an InferenceService; nothing where it has none."""
    metadata: dict[str, Any] = dict(stable["metadata"])
    for part in ("labels", "annotations"):
        words = metadata.get(part, {})
        metadata[part] = {key: text for key, text in words.items() if not key.startswith(_OURS)}
    if metadata != {"labels": {}, "annotations": {}} | stable["metadata"]:
        why = "has no mark of Penstock any more; KServe replaces its pods one by one"
        yield Write("replace", {**stable, "metadata": metadata}, why)


def _left(around: Around, name: str) -> Iterator[Write]:
    """Yield what rollouts kept of a name."""
    for obj in around.kept:
        labels = obj["metadata"].get("labels", {})
        if KEPT in labels and re.fullmatch(rf"{re.escape(name)}(-v\d+)?", labels.get(NAME, "")):
            yield Write("delete", obj, f"was kept as {labels[KEPT]}")
    if around.lease is not None:
        yield Write("delete", around.lease, "kept owners of its rollout apart")


def _of(obj: Object, name: str) -> bool:
    return bool(obj["metadata"].get("labels", {}).get(NAME) == name)
