"""Reads what there is around a name, and does what follows: the one place here that writes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from typing import cast

from penstock.core.errors import ConfigurationError, Conflict, NotReady
from serving import lease
from serving.adoption import adopt as adopting
from serving.adoption import leave as leaving
from serving.adoption.writes import Write
from serving.cluster import Cluster, Kind, Object
from serving.kserve import http_route
from serving.kserve.facts import Facts

ROUTED_S = 30.0
SETTLE_S = 1.0
"""Proxies follow within a tenth of a second (`serving.kserve.http_route`)."""

_POLL_S = 0.2
_ATTEMPTS = 5


def around_isvc(cluster: Cluster, service: str, name: str = "") -> tuple[str, adopting.Around]:
    """Return what there is around an InferenceService that is to be adopted, and its name.

    Args:
        cluster: Its namespace.
        service: The InferenceService.
        name: What clients call the model; empty: as its engine is told.

    Raises:
        ConfigurationError: There is none.
    """
    isvc = cluster.get("InferenceService", service)
    if isvc is None:
        there = ", ".join(o["metadata"]["name"] for o in cluster.list("InferenceService"))
        raise ConfigurationError(
            f"no InferenceService {service}; there are: {there or 'none'}",
            hint="--namespace names another namespace",
        )
    name = name or adopting.name_of(isvc)
    own = cluster.get("HTTPRoute", service)
    carrier = own if name == service else cluster.get("HTTPRoute", name)
    return name, adopting.Around(isvc, own, carrier)


def around_name(cluster: Cluster, name: str) -> leaving.Around:
    """Return what there is around a name that is to be left."""
    return leaving.Around(
        carrier=cluster.get("HTTPRoute", name),
        versions=tuple(cluster.list("InferenceService")),
        routes=tuple(cluster.list("HTTPRoute")),
        kept=tuple(cluster.list("ConfigMap")),
        lease=cluster.get("Lease", lease.name_of(name)),
    )


def act(
    cluster: Cluster,
    plan: Callable[[], Iterable[Write]],
    facts: Facts,
    tell: Callable[[str], None],
    *,
    settle_s: float = SETTLE_S,
) -> None:
    """Do what is left to be written: look, write the first of it, wait, and look again.

    Nothing is undone where it stops: acting again goes on from there. So it does when somebody
    else wrote meanwhile, as KServe does whenever a status changes.

    Args:
        cluster: Where.
        plan: Looks, and returns what is left to be written, in order.
        facts: Which gateway must have accepted routes.
        tell: Takes a line per write.
        settle_s: How long a gateway's proxies may take after it has accepted a route.

    Raises:
        Conflict: Others write all the time.
        NotReady: The gateway does not accept a route; nothing after it was written.
    """
    conflicts, accepted = 0, set[str]()
    while True:
        for write in plan():
            name = write.obj["metadata"]["name"]
            if write.verb == "see" and name in accepted:
                continue
            try:
                _write(cluster, write)
            except Conflict:
                conflicts += 1
                if conflicts == _ATTEMPTS:
                    raise
                break
            tell(str(write))
            if write.routed:
                _until_routed(cluster, name, facts, settle_s)
                accepted.add(name)
            if write.verb != "see":
                break
        else:
            return


def _write(cluster: Cluster, write: Write) -> None:
    obj = write.obj
    kind = cast(Kind, obj["kind"])
    match write.verb:
        case "create":
            cluster.create(obj)
        case "replace":
            cluster.replace(obj)
        case "delete":
            cluster.delete(kind, obj["metadata"]["name"], read=obj)
        case "see":
            return


def _until_routed(cluster: Cluster, name: str, facts: Facts, settle_s: float) -> None:
    never, deadline = threading.Event(), time.monotonic() + ROUTED_S
    while reason := _unrouted(cluster.get("HTTPRoute", name), facts):
        if time.monotonic() > deadline:
            raise NotReady(
                f"HTTPRoute {name}",
                reason=reason,
                waited_s=ROUTED_S,
                hint="users are served as before; mend it, then do the same again",
            )
        never.wait(_POLL_S)
    never.wait(settle_s)


def _unrouted(route: Object | None, facts: Facts) -> str:
    return "it is gone" if route is None else http_route.unobserved(route, facts)
