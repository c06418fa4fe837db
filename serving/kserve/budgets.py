"""How many pods of a version may be taken away at once by who empties a node."""

from __future__ import annotations

from serving.cluster import Object
from serving.manifests import NAME, VERSION


def budget(version: Object, replicas: int) -> Object | None:
    """Return the PodDisruptionBudget of a version, which goes when the version does.

    One pod at a time. None for a single replica, whose node could never be emptied then, and for
    what no server has stored, such as a manifest in Git: nobody would remove it.

    Args:
        version: An InferenceService or an LLMInferenceService, as it was read.
        replicas: That it has when it borrows and lends none.
    """
    metadata = version["metadata"]
    if replicas < 2 or "creationTimestamp" not in metadata:
        return None
    own = {key: metadata["labels"][key] for key in (NAME, VERSION)}
    owner = {
        "apiVersion": version["apiVersion"],
        "kind": version["kind"],
        "name": metadata["name"],
        "uid": metadata["uid"],
    }
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": metadata["name"], "labels": own, "ownerReferences": [owner]},
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": own}},
    }
