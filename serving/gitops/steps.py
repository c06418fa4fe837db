"""Steps that on a cluster wait for each other within one command, and in Git are a commit each."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from penstock.core.errors import ConfigurationError
from penstock.core.spec import ModelSpec
from serving import controller as acting
from serving.cluster import Cluster, Object
from serving.deploy import bring_back, propose
from serving.gitops.manifest import stated
from serving.manifests import NAME, Release
from serving.traffic import Traffic


@dataclass(frozen=True, slots=True)
class Told:
    """What the cluster says of a name, for the next step."""

    ready: Mapping[str, bool]
    """Version's object → whether it serves; one that is not applied yet is missing."""

    routed: Mapping[str, int]
    """The weights in force; empty while they are not known."""


def take_up(cluster: Cluster, there: Cluster, traffic: Traffic, name: str) -> None:
    """Write down what serves a name on the cluster already, if the folder does not have it.

    Without it, the next version would be taken for the first, and get everybody unseen.

    Args:
        cluster: The folder.
        there: The cluster.
        traffic: How traffic is split.
        name: The model's.

    Raises:
        ConfigurationError: A rollout goes on there, with its record on the cluster.
    """
    carrier = there.get(traffic.carrier, name)
    if cluster.get(traffic.carrier, name) is not None or carrier is None:
        return
    record = acting.record_of(carrier)
    if record is not None and not record.over:
        raise ConfigurationError(
            f"{name}: a rollout of {record.candidate} goes on, and its record is on the cluster",
            hint=f"let it end, or penstock rollout rollback {name}; then render",
        )
    for service in traffic.weights_of(carrier):
        version = there.get(traffic.served, service)
        if version is not None and cluster.get(traffic.served, service) is None:
            bring_back(cluster, traffic, stated(version))
    cluster.create(stated(carrier))


def first(cluster: Cluster, spec: ModelSpec, release: Release, traffic: Traffic) -> str:
    """Write the first version of a name, and its route; return the version's name.

    In one commit: nobody is served yet who could meet a version that is not ready.
    """
    service = propose(cluster, spec, release, traffic)
    if cluster.get(traffic.carrier, spec.name) is None:
        cluster.create(traffic.carrying(spec.name, {service: 100}))
    return service


def revert(cluster: Cluster, traffic: Traffic, name: str, told: Told) -> tuple[str, str]:
    """Write the next step back to the version before the last promotion.

    The version is made again; when it is ready it gets all traffic; when that routes, the version
    that was left is removed. Each is one commit, and `git revert` takes it back.

    Args:
        cluster: The folder.
        traffic: How traffic is split.
        name: The model's.
        told: What the cluster says.

    Returns:
        The version that is gone back to, and what was written; empty where there is something to
        wait for first, or nothing left to do.

    Raises:
        ConfigurationError: A rollout goes on, or there was no promotion.
    """
    carrier = _settled(cluster, traffic, name)
    before = json.loads(carrier["metadata"]["annotations"][acting.PREVIOUS])
    old, weights = str(before["metadata"]["name"]), traffic.weights_of(carrier)
    if weights == {old: 100}:
        return old, _tidied(cluster, traffic, name, old, told)
    if cluster.get(traffic.served, old) is None:
        bring_back(cluster, traffic, before)
        return old, f"{old} is served again, without traffic"
    if not told.ready.get(old):
        return old, ""
    moved = cluster.replace(traffic.weighted(carrier, {old: 100}))
    traffic.enforce(cluster, moved)
    return old, f"{old} gets 100 %"


def _settled(cluster: Cluster, traffic: Traffic, name: str) -> Object:
    """Return the carrier of a name whose last rollout is over, and was a promotion once."""
    carrier = cluster.get(traffic.carrier, name)
    record = acting.record_of(carrier) if carrier is not None else None
    if record is not None and not record.over:
        raise ConfigurationError(
            f"{name}: a rollout of {record.candidate} goes on",
            hint=f"penstock rollout rollback {name}",
        )
    if carrier is None or acting.PREVIOUS not in carrier["metadata"].get("annotations", {}):
        raise ConfigurationError(
            f"{name}: nothing was promoted, so there is no version before",
            hint="git revert takes a commit back; git log shows them",
        )
    return carrier


def _tidied(cluster: Cluster, traffic: Traffic, name: str, old: str, told: Told) -> str:
    """Remove what else there is of a name, once nobody is led to it."""
    left = [
        obj["metadata"]["name"]
        for obj in cluster.list(traffic.served)
        if obj["metadata"].get("labels", {}).get(NAME) == name and obj["metadata"]["name"] != old
    ]
    if not left or told.routed != {old: 100}:
        return ""
    for service in left:
        cluster.delete(traffic.served, service)
    return f"{', '.join(left)} removed"
