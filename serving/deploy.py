"""Replaces what is served when the new version is ready; before that, nothing changes for users."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from penstock.core.errors import Conflict, NotReady
from penstock.core.spec import ModelSpec
from serving.cluster import Cluster, Object
from serving.manifests import (
    NAME,
    Release,
    inference_service,
    ready,
    route,
    service_name,
    weights_of,
)

_ROUTED_S = 30.0
_POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class Deployed:
    """What is served now."""

    service: str
    ready_s: float
    """How long the new version took to become ready."""

    weights: dict[str, int]
    replaced: tuple[str, ...]


def propose(cluster: Cluster, spec: ModelSpec, release: Release) -> str:
    """Create a version's InferenceService, without traffic, if it is not there; return its name."""
    service = service_name(spec.name, release.version)
    if cluster.get("InferenceService", service) is None:
        cluster.create(inference_service(spec, release))
    return service


def deploy(
    cluster: Cluster,
    spec: ModelSpec,
    release: Release,
    *,
    observed: Callable[[], Mapping[str, int]],
    on_wait: Callable[[float], None] = lambda _waited_s: None,
) -> Deployed:
    """Serve a version under the spec's name; the versions before it are removed.

    Running it again when that version is served changes nothing. A version that does not become
    ready is removed unless it has traffic, and `NotReady` raised: what was served goes on being
    served.

    Args:
        cluster: Where to.
        spec: What is served.
        release: The version, and where its files are.
        observed: Returns the weights that really route; the old version goes only after that.
        on_wait: Told the seconds waited so far.
    """
    service = propose(cluster, spec, release)
    try:
        ready_s = _wait(cluster, service, spec.rollout.ready_timeout_s, on_wait)
    except NotReady:
        if not _weight(cluster, spec.name, service):
            cluster.delete("InferenceService", service)
        raise
    _shift(cluster, spec.name, service)
    _until_routed(service, observed)
    replaced = tuple(
        obj["metadata"]["name"]
        for obj in cluster.list("InferenceService")
        if obj["metadata"].get("labels", {}).get(NAME) == spec.name
        and obj["metadata"]["name"] != service
    )
    for old in replaced:  # after the route left them: a drained replica finishes what it has
        cluster.delete("InferenceService", old)
    return Deployed(service, ready_s, {service: 100}, replaced)


def _wait(
    cluster: Cluster, service: str, timeout_s: float, on_wait: Callable[[float], None]
) -> float:
    start, reason = time.monotonic(), "nothing has looked at it yet"
    while True:
        left = timeout_s - (time.monotonic() - start)
        if left <= 0:
            break
        for obj in cluster.watch("InferenceService", timeout_s=min(left, 0.5)):
            if obj["metadata"]["name"] != service:
                continue
            is_ready, reason = _seen(obj)
            if is_ready:
                return time.monotonic() - start
        on_wait(time.monotonic() - start)
    raise NotReady(
        service,
        reason=reason,
        waited_s=timeout_s,
        hint="penstock local status shows the log; the version that was served still is. A slow "
        "start: raise rollout.ready_timeout_s",
    )


def _until_routed(service: str, observed: Callable[[], Mapping[str, int]]) -> None:
    """Wait until all traffic goes to a service; a weight counts once it was read back."""
    never, deadline = threading.Event(), time.monotonic() + _ROUTED_S
    while observed() != {service: 100}:
        if time.monotonic() > deadline:
            raise NotReady(
                service,
                reason="the gateway does not route to it",
                waited_s=_ROUTED_S,
                hint="penstock local status; then run again",
            )
        never.wait(_POLL_S)


def _seen(obj: Object) -> tuple[bool, str]:
    if "deletionTimestamp" in obj["metadata"]:
        return False, "somebody deleted it"
    return ready(obj)


def _weight(cluster: Cluster, name: str, service: str) -> int:
    current = cluster.get("HTTPRoute", name)
    return weights_of(current).get(service, 0) if current else 0


def _shift(cluster: Cluster, name: str, service: str) -> None:
    """Give a service all of the route's traffic."""
    target = route(name, {service: 100})
    while True:
        current = cluster.get("HTTPRoute", name)
        try:
            if current is None:
                cluster.create(target)
            elif weights_of(current) != {service: 100}:
                cluster.replace({**current, "spec": target["spec"]})
        except Conflict:
            continue  # somebody wrote meanwhile: read again
        return
