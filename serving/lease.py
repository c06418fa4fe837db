"""Who may act on a rollout: a Lease per name, as Kubernetes' leader election writes it."""

from __future__ import annotations

from datetime import UTC, datetime

from penstock.core.errors import Conflict
from serving.cluster import Cluster, Object

DURATION_S = 15.0
RENEW_S = 5.0


def acquire(cluster: Cluster, name: str, owner: str, now: float) -> bool:
    """Return whether `owner` holds the lease of a rollout, taking or renewing it if it may.

    A lease that was not renewed for `DURATION_S` is anybody's. Holding it is a courtesy that keeps
    two owners from working at the same time; what keeps writes apart is the compare-and-swap and
    the epoch in the record.
    """
    current = cluster.get("Lease", name_of(name))
    try:
        if current is None:
            cluster.create(_lease(name, owner, now))
            return True
        spec = current["spec"]
        mine, age_s = spec["holderIdentity"] == owner, now - _seconds(spec["renewTime"])
        if not mine and age_s < DURATION_S:
            return False
        if not mine or age_s >= RENEW_S:
            cluster.replace({**current, "spec": _lease(name, owner, now)["spec"]})
    except Conflict:
        return False  # somebody else was faster; the next look tells
    return True


def release(cluster: Cluster, name: str, owner: str) -> None:
    """Give the lease up, so that another need not wait for it to run out."""
    current = cluster.get("Lease", name_of(name))
    if current is not None and current["spec"]["holderIdentity"] == owner:
        cluster.delete("Lease", name_of(name))


def holder(cluster: Cluster, name: str, now: float) -> str:
    """Return who holds the lease of a rollout; empty when nobody does, or it ran out."""
    current = cluster.get("Lease", name_of(name))
    if current is None or now - _seconds(current["spec"]["renewTime"]) >= DURATION_S:
        return ""
    return str(current["spec"]["holderIdentity"])


def name_of(name: str) -> str:
    """Return the name of the Lease of a model's rollout."""
    return f"penstock-rollout-{name}"


def _lease(name: str, owner: str, now: float) -> Object:
    renewed = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": name_of(name)},
        "spec": {
            "holderIdentity": owner,
            "leaseDurationSeconds": int(DURATION_S),
            "renewTime": renewed,
        },
    }


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
