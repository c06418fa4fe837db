"""What a cluster is able and willing to do: its version, its kinds, this account's rights."""

from __future__ import annotations

from typing import cast

from serving.cluster import Kind, Object
from serving.kube.api import Api
from serving.kube.calls import Call, Target, Verb
from serving.kube.errors import Absent
from serving.kube.kinds import RESOURCES


def server_version(api: Api) -> str:
    """Return the API server's version, such as `v1.34.4`."""
    return str(_at(api, "/version")["gitVersion"])


def served(api: Api, kind: Kind) -> tuple[str, ...]:
    """Return the versions in which a kind is served, the preferred first; none if it is not."""
    resource = RESOURCES[kind]
    try:
        if not resource.group:
            versions = _at(api, "/api")["versions"]
            return tuple(v for v in versions if _has(api, f"/api/{v}", kind))
        found = _at(api, f"/apis/{resource.group}")
    except Absent:
        return ()
    every = [found["preferredVersion"]["version"], *(v["version"] for v in found["versions"])]
    roots = {version: f"/apis/{resource.group}/{version}" for version in every}
    return tuple(version for version, root in roots.items() if _has(api, root, kind))


def may(api: Api, verb: Verb, kind: Kind, namespace: str, *, subresource: str = "") -> bool:
    """Return whether this account may do that; asking needs no rights and changes nothing.

    Args:
        api: The API server.
        verb: In RBAC's words.
        kind: Of which objects.
        namespace: Where; without effect for what belongs to the whole cluster.
        subresource: Such as `status`, which has its own rights.
    """
    resource = RESOURCES[kind]
    asked = {
        "verb": verb,
        "group": resource.group,
        "version": resource.version,
        "resource": resource.plural,
        "subresource": subresource,
        "namespace": namespace if resource.namespaced else "",
    }
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": asked},
    }
    path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    answered = api.read(Call("create", path, "SelfSubjectAccessReview", body=review))
    return bool(answered["status"]["allowed"])


def nodes(api: Api) -> list[Object]:
    """Return the nodes, by name; what each can still give is in `allocatable`."""
    found, _ = api.list(Target("Node", "").call("list"))
    return sorted(found, key=lambda node: str(node["metadata"]["name"]))


def everywhere(api: Api, kind: Kind) -> list[Object]:
    """Return the objects of a kind of all namespaces, or of the cluster."""
    found, _ = api.list(Target(kind, "").call("list"))
    return found


def allocatable(node: Object) -> dict[str, str]:
    """Return what pods may ask of a node: `cpu`, `memory`, `nvidia.com/gpu`; nothing if closed."""
    if node["spec"].get("unschedulable"):
        return {}
    return cast("dict[str, str]", node.get("status", {}).get("allocatable", {}))


def _has(api: Api, root: str, kind: Kind) -> bool:
    plural = RESOURCES[kind].plural
    return any(found["name"] == plural for found in _at(api, root)["resources"])


def _at(api: Api, path: str) -> Object:
    return api.read(Call("get", path, path))
