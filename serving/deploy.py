"""Replaces what is served when the new version is ready; before that, nothing changes for users."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from penstock.core.errors import ConfigurationError, Conflict, LifecycleError, NotReady
from penstock.core.spec import ModelSpec
from serving import controller as acting
from serving.cluster import Cluster, Object
from serving.manifests import NAME, Release, ready, replicas_of, scaled, service_name
from serving.rollout.loan import Loan
from serving.traffic import Traffic

_ROUTED_S = 30.0
_POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class Site:
    """Where a name is served."""

    cluster: Cluster
    observed: Callable[[], Mapping[str, int]]
    """Returns the weights that really route; the old version goes only after that."""

    traffic: Traffic = acting.LOCAL
    why: Callable[[str], str] = lambda _service: ""
    """Returns what keeps a version's processes from serving; empty when nothing is known."""

    on_wait: Callable[[float], None] = lambda _waited_s: None
    """Told the seconds waited so far."""

    hint: str = "penstock local status"


@dataclass(frozen=True, slots=True)
class Deployed:
    """What is served now."""

    service: str
    ready_s: float
    """How long the new version took to become ready."""

    weights: dict[str, int]
    replaced: tuple[str, ...]


def propose(
    cluster: Cluster,
    spec: ModelSpec,
    release: Release,
    traffic: Traffic = acting.LOCAL,
    *,
    loan: Loan | None = None,
) -> str:
    """Create what serves a version, without traffic, if it is not there; return its name.

    Args:
        cluster: Where to.
        spec: What is served.
        release: The version, and where its files are.
        traffic: How traffic is split there.
        loan: With how many replicas it starts, if devices are short.
    """
    service = service_name(spec.name, release.version)
    _complete(cluster, traffic.claims(spec))
    made = cluster.get(traffic.served, service)
    if made is None:
        whole = traffic.version(spec, release)
        made = cluster.create(whole if loan is None else scaled(whole, loan.starts))
    _complete(cluster, traffic.budgets(made, spec.replicas))
    return service


def bring_back(cluster: Cluster, traffic: Traffic, snapshot: Object) -> None:
    """Create a version anew from what was kept of it when another took over."""
    made = cluster.create(snapshot)
    _complete(cluster, traffic.budgets(made, replicas_of(snapshot)))


def _complete(cluster: Cluster, objects: Iterable[Object]) -> None:
    for each in objects:
        if cluster.get(each["kind"], each["metadata"]["name"]) is None:
            cluster.create(each)


def rehearse(
    cluster: Cluster, spec: ModelSpec, release: Release, traffic: Traffic = acting.LOCAL
) -> None:
    """Raise what would keep a version from being created; change nothing."""
    if cluster.get(traffic.served, service_name(spec.name, release.version)) is None:
        cluster.create(traffic.version(spec, release), dry_run=True)


def deploy(site: Site, spec: ModelSpec, release: Release) -> Deployed:
    """Serve a version under the spec's name; the versions before it are removed.

    Running it again when that version is served changes nothing. A version that does not become
    ready is removed unless it has traffic, and `NotReady` raised: what was served goes on being
    served.

    Args:
        site: Where to.
        spec: What is served.
        release: The version, and where its files are.
    """
    cluster, traffic = site.cluster, site.traffic
    service = propose(cluster, spec, release, traffic)
    try:
        ready_s = _until_ready(site, service, spec.rollout.ready_within_s)
    except NotReady:
        if not _wanted(site, spec.name, service):
            cluster.delete(traffic.served, service)
        raise
    _shift(site, spec.name, service)
    _until_routed(site, spec.name, service)
    replaced = tuple(
        obj["metadata"]["name"]
        for obj in cluster.list(traffic.served)
        if obj["metadata"].get("labels", {}).get(NAME) == spec.name
        and obj["metadata"]["name"] != service
    )
    for old in replaced:  # after the route left them: a drained replica finishes what it has
        cluster.delete(traffic.served, old)
    return Deployed(service, ready_s, {service: 100}, replaced)


def revert(site: Site, name: str, timeout_s: float) -> Deployed:
    """Serve the version before the last promotion again, without evidence: a person says so.

    It is made again from the snapshot on the route if it was removed, and gets all traffic once it
    is ready. The version that is left is kept as a snapshot and removed, so this can be undone.

    Args:
        site: Where it is served.
        name: The model's.
        timeout_s: How long the version may take to become ready.

    Raises:
        ConfigurationError: A rollout goes on, or there was no promotion.
        Conflict: Another version took over meanwhile.
        NotReady: The version before does not start; what is served goes on being served.
    """
    cluster, traffic = site.cluster, site.traffic
    obj = cluster.get(traffic.carrier, name)
    record = acting.record_of(obj) if obj is not None else None
    if record is not None and not record.over:
        raise acting.going_on(name, record)
    text = obj["metadata"].get("annotations", {}).get(acting.PREVIOUS) if obj else None
    if obj is None or text is None:
        raise ConfigurationError(
            f"{name}: nothing was promoted, so there is no version before",
            hint="penstock run with the old source: its weights are in the store",
        )
    before = json.loads(text)
    service = str(before["metadata"]["name"])
    left = acting.stable_of(cluster, name, traffic)
    if service == left:
        return Deployed(service, 0.0, {service: 100}, ())
    if cluster.get(traffic.served, service) is None:
        bring_back(cluster, traffic, before)
    try:
        ready_s = _until_ready(site, service, timeout_s)
        gone = cluster.get(traffic.served, left)
        marks = {acting.PREVIOUS: acting.snapshot(gone)} if gone is not None else {}
        _shift(site, name, service, marks, left=left)
    except LifecycleError:
        if not _wanted(site, name, service):
            cluster.delete(traffic.served, service)
        raise
    _until_routed(site, name, service)
    cluster.delete(traffic.served, left)
    return Deployed(service, ready_s, {service: 100}, (left,))


def _until_ready(site: Site, service: str, timeout_s: float) -> float:
    """Return how long it took, in seconds."""
    start, reason = time.monotonic(), "nothing has looked at it yet"
    while True:
        left = timeout_s - (time.monotonic() - start)
        if left <= 0:
            break
        for obj in site.cluster.watch(site.traffic.served, timeout_s=min(left, 0.5)):
            if obj["metadata"]["name"] != service:
                continue
            is_ready, reason = _seen(obj)
            if is_ready:
                return time.monotonic() - start
        site.on_wait(time.monotonic() - start)
    raise NotReady(
        service,
        reason=site.why(service) or reason,
        waited_s=timeout_s,
        hint=f"{site.hint} shows more; the version that was served still is. A slow start: raise "
        "rollout.ready_timeout_s",
    )


def _until_routed(site: Site, name: str, service: str) -> None:
    """Wait until all traffic goes to a service; a weight counts once it was read back."""
    never, deadline = threading.Event(), time.monotonic() + _ROUTED_S
    while site.observed() != {service: 100}:
        if time.monotonic() > deadline:
            raise NotReady(
                service,
                reason="the gateway does not route to it",
                waited_s=_ROUTED_S,
                hint=f"{site.hint}; then run again",
            )
        never.wait(_POLL_S)
        carrier = site.cluster.get(site.traffic.carrier, name)
        if carrier is not None:
            site.traffic.enforce(site.cluster, carrier)


def _seen(obj: Object) -> tuple[bool, str]:
    if "deletionTimestamp" in obj["metadata"]:
        return False, "somebody deleted it"
    return ready(obj)


def _wanted(site: Site, name: str, service: str) -> bool:
    """Return whether a version has users, as far as the carrier tells, or is in a rollout."""
    current = site.cluster.get(site.traffic.carrier, name)
    if current is None:
        return False
    shares, record = site.traffic.weights_of(current), acting.record_of(current)
    rolled = record is not None and not record.over and service in (record.candidate, record.stable)
    return rolled or shares.get(service, 0) > 0 or not shares  # paths that disagree tell nothing


def _shift(
    site: Site,
    name: str,
    service: str,
    marks: Mapping[str, str] = MappingProxyType({}),
    *,
    left: str = "",
) -> None:
    """Give a service all of the name's traffic; if it is `left`'s, where that is given.

    Raises:
        ConfigurationError: A rollout goes on: it alone moves weights.
        Conflict: Another version took over.
    """
    cluster, traffic = site.cluster, site.traffic
    while True:
        current = cluster.get(traffic.carrier, name)
        if current is not None:
            record, shares = acting.record_of(current), traffic.weights_of(current)
            if record is not None and not record.over:
                raise acting.going_on(name, record)
            if left and shares not in ({left: 100}, {service: 100}):
                raise Conflict(
                    f"{name}: {acting.told(shares)} meanwhile, and {left} was to be replaced",
                    hint=f"{site.hint} shows what is served; then decide again",
                )
        try:
            if current is None:
                current = cluster.create(traffic.carrying(name, {service: 100}))
            elif traffic.weights_of(current) != {service: 100}:
                marked = acting.annotated(current, marks)
                current = cluster.replace(traffic.weighted(marked, {service: 100}))
        except Conflict:
            continue  # somebody wrote meanwhile: read again
        traffic.enforce(cluster, current)
        return
