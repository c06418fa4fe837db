"""A Kubernetes cluster: the only room that knows the kubernetes client.

`calls`, `kinds`, `refusals` and `readback` are values and decisions; `session` holds connections,
`api` tries again where that is safe, `cluster` is the `Cluster` made of them.
"""

from __future__ import annotations

from serving.kube.access import find
from serving.kube.api import Api
from serving.kube.cluster import KubernetesCluster
from serving.kube.patience import Patience
from serving.kube.session import Session

__all__ = ["KubernetesCluster", "connect"]


def connect(
    context: str = "",
    namespace: str = "",
    *,
    kubeconfig: str = "",
    patience: Patience | None = None,
) -> KubernetesCluster:
    """Return a cluster; asks it nothing yet, so `Unreachable` comes with the first call.

    Args:
        context: A context of the kubeconfig; empty for the current one, or for the
            ServiceAccount of the pod this runs in.
        namespace: Where to work; empty for the one that context or pod name.
        kubeconfig: The file; empty for KUBECONFIG, then `~/.kube/config`.
        patience: Bounds on every operation.
    """
    access = find(context, kubeconfig=kubeconfig)
    api = Api(Session(access.load), patience or Patience())
    return KubernetesCluster(api, namespace or access.namespace)
