"""Asks a cluster what it can do: for `penstock doctor`, and for every run before it begins.

What follows from the answers is in `serving.targets.checks`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from penstock.core.replica import Hardware
from penstock.core.spec import KServe
from serving.cluster import Cluster, Kind, Object
from serving.gpus import claims
from serving.gpus.devices import Devices, with_claims
from serving.gpus.inventory import inventory_of
from serving.gpus.offers import devices as of_resources
from serving.gpus.offers import offers_of
from serving.kserve import runtimes, standard
from serving.kserve.facts import Facts
from serving.kserve.traffic import MECHANISMS
from serving.kube import KubernetesCluster
from serving.kube.discovery import (
    allocatable,
    everywhere,
    may,
    nodes,
    served,
    server_version,
)
from serving.kube.errors import Unreachable
from serving.manifests import NAME
from serving.targets.checks import Found, gateway_of, mechanism, rights_for

_CONFIG, _CONFIG_NAMESPACE = "inferenceservice-config", "kserve"
_MANAGER = "kserve-controller-manager"
_KINDS: tuple[Kind, ...] = (
    "InferenceService",
    "LLMInferenceService",
    "HTTPRoute",
    "VirtualService",
    "Gateway",
    "ResourceClaimTemplate",
    "LeaderWorkerSet",
)


def look(cluster: KubernetesCluster, where: KServe, *, rights: bool = False) -> Found:
    """Ask a cluster; what may not be read stays unknown.

    Args:
        cluster: The namespace that models live in.
        where: What the spec says of it.
        rights: Whether to ask what this account may do, too: a question per verb and kind.

    Raises:
        ServingError: It does not answer.
        ConfigurationError: There is no way in.
    """
    api = cluster.api
    kinds = {kind: served(api, kind) for kind in _KINDS}
    config = _unless_denied(lambda: _in(cluster, _CONFIG_NAMESPACE).get("ConfigMap", _CONFIG))
    ingress = json.loads(config["data"].get("ingress", "{}")) if config else {}
    gateway = None
    if kinds["Gateway"] and where.mode != "istio":
        namespace, name = gateway_of(where, ingress)
        gateway = _unless_denied(lambda: _in(cluster, namespace).get("Gateway", name))
    manager = _unless_denied(lambda: _in(cluster, _CONFIG_NAMESPACE).get("Deployment", _MANAGER))
    there = _unless_denied(lambda: nodes(api))
    found = Found(
        server=server_version(api),
        kinds=kinds,
        kserve=_tag(manager),
        ingress=ingress,
        gateway=gateway,
        runtimes={
            each.runtime: _there(cluster, each.runtime) for each in runtimes.ENGINES.values()
        },
        gpus=None if there is None else sum(map(_gpus, there)),
        offers=None if there is None else offers_of(there),
    )
    if mechanism(found, where) == "standard" and kinds["InferenceService"]:
        found = replace(found, canaries=_unless_denied(lambda: _canaries(cluster)) or ())
    if not rights:
        return found
    needed = rights_for(mechanism(found, where))
    missing = (right for right in needed if not may(api, *right, cluster.namespace))
    return replace(found, missing=tuple(missing))


def devices(cluster: KubernetesCluster, hardware: Hardware) -> Devices | None:
    """Return what is free on a cluster; None where that may not be read.

    It takes nodes, and the pods of all namespaces; with claims, these and the slices, too. None
    also where they are too many to be read in time.
    """
    api = cluster.api
    try:
        there = _unless_denied(lambda: nodes(api))
        pods = _unless_denied(lambda: everywhere(api, "Pod"))
    except Unreachable:  # a list of many thousands takes longer than anybody waits
        return None
    if there is None or pods is None:
        return None
    found = inventory_of(there, pods)
    if hardware.claim == "dra":
        slices = _unless_denied(lambda: everywhere(api, "ResourceSlice"))
        made = _unless_denied(lambda: everywhere(api, "ResourceClaim"))
        if slices is None or made is None:
            return None
        found = with_claims(found, claims.free(slices, made, hardware))
    return Devices(found, hardware)


def led_by(cluster: Cluster, name: str, facts: Facts, found: Found) -> str:
    """Return the mechanism by which a name's users are led; empty: they are not, or nobody knows.

    Args:
        cluster: The namespace that models live in.
        name: What is served.
        facts: The cluster's.
        found: What the cluster said.
    """
    for mode, traffic in MECHANISMS.items():
        known = traffic(facts)
        if not found.kinds.get(known.carrier):
            continue
        obj = _unless_denied(partial(cluster.get, known.carrier, name))
        ours = obj is not None and obj["metadata"].get("labels", {}).get(NAME) == name
        if ours and known.carries(obj):
            return mode
    return ""


def _canaries(cluster: KubernetesCluster) -> tuple[tuple[Object, Object], ...]:
    """Return what shows whether KServe splits: its word is not enough, the CRD has the field."""
    services = filter(standard.candidate_ready, cluster.list("InferenceService"))
    pairs = [(each, cluster.get("HTTPRoute", each["metadata"]["name"])) for each in services]
    return tuple((service, route) for service, route in pairs if route is not None)


def _there(cluster: KubernetesCluster, runtime: str) -> bool | None:
    kinds: tuple[Kind, ...] = ("ServingRuntime", "ClusterServingRuntime")
    found = [_unless_denied(partial(_is_there, cluster, kind, runtime)) for kind in kinds]
    return True if True in found else None if None in found else False


def _is_there(cluster: KubernetesCluster, kind: Kind, name: str) -> bool:
    return cluster.get(kind, name) is not None


def _gpus(node: Object) -> int:
    return sum(of_resources(allocatable(node)).values())


def _in(cluster: KubernetesCluster, namespace: str) -> KubernetesCluster:
    return KubernetesCluster(cluster.api, namespace)


def _unless_denied(ask: Callable[[], Any]) -> Any:
    """Return what is there; None where it may not be read, or its kind is not served."""
    from serving.kube.errors import Forbidden, NotServed

    try:
        return ask()
    except (Forbidden, NotServed):
        return None


def _tag(deployment: Object | None) -> str:
    if deployment is None:
        return ""
    images = [c["image"] for c in deployment["spec"]["template"]["spec"]["containers"]]
    tags = [re.search(r":v?(\d+\.\d+(\.\d+)?)", image) for image in images]
    return next((tag[1] for tag in tags if tag), "")
