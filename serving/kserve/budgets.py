"""How many pods of a version may be taken away at once by who empties a node."""

from __future__ import annotations

from serving.cluster import Object
from serving.manifests import NAME, VERSION

_OWN = (NAME, VERSION)


def of(version: Object, replicas: int) -> list[Object]:
    """Return the PodDisruptionBudget of a version, which goes when the version does.

    One pod at a time. None for a single replica, whose node could never be emptied then, and for
    what was adopted: its pods are not labelled by us.

    Args:
        version: An InferenceService or an LLMInferenceService, as it was read.
        replicas: That it has when it borrows and lends none.
    """
    metadata = version["metadata"]
    own = {key: value for key, value in metadata.get("labels", {}).items() if key in _OWN}
    if replicas < 2 or len(own) < len(_OWN):
        return []
    owner = {
        "apiVersion": version["apiVersion"],
        "kind": version["kind"],
        "name": metadata["name"],
        "uid": metadata["uid"],
    }
    budget = {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": metadata["name"], "labels": own, "ownerReferences": [owner]},
        "spec": {
            "maxUnavailable": 1,
            "selector": {"matchLabels": own},
            # pods that serve nobody keep no node from being emptied
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
        },
    }
    return [budget]
