"""The Pod Security Standard `restricted`, as far as it speaks of what our pods have.

Source: Kubernetes 1.34, "Pod Security Standards". The API server's own rules judge on a cluster.
"""

from __future__ import annotations

from collections.abc import Iterator

from serving.cluster import Object

_VOLUMES = {
    *("configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim"),
    *("projected", "secret"),
}
ROOT = "may run as root"


def violations(pod: Object) -> Iterator[str]:
    """Yield what a pod's spec has that `restricted` refuses, container by container."""
    for field in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.get(field):
            yield f"pod: {field}"
    for volume in pod.get("volumes", []):
        if not _VOLUMES & volume.keys():
            yield f"volume {volume['name']}: {sorted(volume)}"
    for container in [*pod.get("initContainers", []), *pod["containers"]]:
        for mistake in _container(container, pod.get("securityContext", {})):
            yield f"{container['name']}: {mistake}"


def _container(container: Object, of_pod: Object) -> Iterator[str]:
    own = container.get("securityContext", {})
    capabilities = own.get("capabilities", {})
    if own.get("privileged") or own.get("allowPrivilegeEscalation") is not False:
        yield "may gain privileges"
    if capabilities.get("drop") != ["ALL"] or set(capabilities.get("add", [])) - {
        "NET_BIND_SERVICE"
    }:
        yield "keeps capabilities"
    if {**of_pod, **own}.get("seccompProfile", {}).get("type") not in (
        "RuntimeDefault",
        "Localhost",
    ):
        yield "no seccomp profile"
    if not {**of_pod, **own}.get("runAsNonRoot") or {**of_pod, **own}.get("runAsUser") == 0:
        yield ROOT
    if any("hostPort" in port for port in container.get("ports", [])):
        yield "a port of the node"
