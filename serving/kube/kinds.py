"""Where each kind lies in the API: one table, and the paths made of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote

from serving.cluster import Kind

_DEVICES = "resource.k8s.io"
_SERVING, _GATEWAY = "serving.kserve.io", "gateway.networking.k8s.io"
_ISTIO = "networking.istio.io"
_TRAINER = "trainer.kubeflow.org"
_GROUPS = "leaderworkerset.x-k8s.io"


@dataclass(frozen=True, slots=True)
class Resource:
    """What the API calls a kind."""

    group: str
    """API group; empty for the core."""

    version: str
    """The version that Penstock writes."""

    plural: str
    """The name in paths and in RBAC rules."""

    namespaced: bool = True
    """False for what belongs to the whole cluster."""

    @property
    def api_version(self) -> str:
        """The `apiVersion` of its objects."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def full_name(self) -> str:
        """Plural and group, as a CustomResourceDefinition is named."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    def path(self, namespace: str, name: str = "", subresource: str = "") -> str:
        """Return the path of an object, or of all of them without a name.

        Without a namespace, of all namespaces.
        """
        root = f"/apis/{self.api_version}" if self.group else f"/api/{self.version}"
        where = f"namespaces/{quote(namespace, safe='')}" if self.namespaced and namespace else ""
        parts = [root, where, self.plural, quote(name, safe=""), subresource]
        return "/".join(part for part in parts if part)


RESOURCES: Mapping[Kind, Resource] = {
    "InferenceService": Resource(_SERVING, "v1beta1", "inferenceservices"),
    "LLMInferenceService": Resource(_SERVING, "v1alpha2", "llminferenceservices"),
    "LLMInferenceServiceConfig": Resource(_SERVING, "v1alpha2", "llminferenceserviceconfigs"),
    "ServingRuntime": Resource(_SERVING, "v1alpha1", "servingruntimes"),
    "ClusterServingRuntime": Resource(
        _SERVING, "v1alpha1", "clusterservingruntimes", namespaced=False
    ),
    "HTTPRoute": Resource(_GATEWAY, "v1", "httproutes"),
    "VirtualService": Resource(_ISTIO, "v1", "virtualservices"),
    "Gateway": Resource(_GATEWAY, "v1", "gateways"),
    "GatewayClass": Resource(_GATEWAY, "v1", "gatewayclasses", namespaced=False),
    "Lease": Resource("coordination.k8s.io", "v1", "leases"),
    "ConfigMap": Resource("", "v1", "configmaps"),
    "Secret": Resource("", "v1", "secrets"),
    "Service": Resource("", "v1", "services"),
    "Pod": Resource("", "v1", "pods"),
    "Event": Resource("", "v1", "events"),
    "Deployment": Resource("apps", "v1", "deployments"),
    "PodDisruptionBudget": Resource("policy", "v1", "poddisruptionbudgets"),
    "ResourceClaimTemplate": Resource(_DEVICES, "v1", "resourceclaimtemplates"),
    "ResourceClaim": Resource(_DEVICES, "v1", "resourceclaims"),
    "ResourceSlice": Resource(_DEVICES, "v1", "resourceslices", namespaced=False),
    "Node": Resource("", "v1", "nodes", namespaced=False),
    "Namespace": Resource("", "v1", "namespaces", namespaced=False),
    "CustomResourceDefinition": Resource(
        "apiextensions.k8s.io", "v1", "customresourcedefinitions", namespaced=False
    ),
    "TrainJob": Resource(_TRAINER, "v1alpha1", "trainjobs"),
    "TrainingRuntime": Resource(_TRAINER, "v1alpha1", "trainingruntimes"),
    "LeaderWorkerSet": Resource(_GROUPS, "v1", "leaderworkersets"),
}

_INSTALL = {
    _SERVING: "KServe's CRDs (charts kserve-crd and kserve-llmisvc-crd)",
    _GATEWAY: "the CRDs of Gateway API (its standard channel)",
    _ISTIO: "Istio (its chart base)",
    _GROUPS: "LeaderWorkerSet (its chart or manifests)",
    _TRAINER: "Kubeflow Trainer 2 (its manifests, overlay manager)",
}


def to_install(resource: Resource) -> str:
    """Return what brings a kind that the cluster does not serve."""
    return _INSTALL.get(resource.group, f"what serves {resource.full_name}")
