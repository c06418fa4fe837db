"""What a cluster is like, as far as the objects depend on it. A probe fills this in."""

from __future__ import annotations

from dataclasses import dataclass

from penstock import __version__
from serving.cluster import Object
from serving.gpus.offers import Offer

PREDICTOR_PORT = 80
"""Of the Service `<InferenceService>-predictor`: KServe maps it to the container's first port."""


@dataclass(frozen=True, slots=True)
class Gateway:
    """The Gateway that users come through."""

    name: str = "kserve-ingress-gateway"
    namespace: str = "kserve"
    domain: str = "example.com"
    """KServe's `ingressDomain`."""

    def hostnames(self, name: str, namespace: str) -> list[str]:
        """Return what clients may call a model: KServe's own form first, then with dots."""
        return [f"{name}-{namespace}.{self.domain}", f"{name}.{namespace}.{self.domain}"]


_MORE_GI = 16
"""Memory for each device beside the first."""


@dataclass(frozen=True, slots=True)
class Resources:
    """What a container asks for and may use; equal, so that no neighbour changes its latency."""

    cpu: str
    memory: str

    def beside(self, devices: int) -> Resources:
        """Return what a pod with so many devices has, where this is for one.

        vLLM's documentation ("CPU Resources for GPU Deployments") asks for two threads of a core
        for each of its 2 + N processes; for one device that is more than small nodes have, and
        stays as it was. Memory is a guess: a process per device, and what they share.
        """
        if devices == 1:
            return self
        cpu = 2 * (2 + devices)
        memory = int(self.memory.removesuffix("Gi")) + _MORE_GI * (devices - 1)
        return Resources(str(cpu), f"{memory}Gi")

    def to_object(self, resource: str = "", devices: int = 0) -> Object:
        """Return Kubernetes' form, with devices if there are any."""
        amounts = {"cpu": self.cpu, "memory": self.memory}
        if devices:
            amounts[resource] = str(devices)
        return {"requests": dict(amounts), "limits": dict(amounts)}


@dataclass(frozen=True, slots=True)
class Storage:
    """How pods reach checkpoints."""

    hub_endpoint: str = ""
    """`HF_ENDPOINT`: a mirror of the Hub; empty: the public one."""

    s3_endpoint: str = ""
    """`AWS_ENDPOINT_URL`: a store that speaks S3; empty: AWS."""

    s3_region: str = ""
    secret: str = ""
    """Secret in the models' namespace whose keys become variables of the fetching container:
    `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`, `HF_TOKEN`. Empty: none."""

    resources: Resources = Resources("2", "4Gi")
    """KServe's default, 1 GiB, is too little for checkpoints of gigabytes."""


@dataclass(frozen=True, slots=True)
class Facts:
    """One cluster, seen from the namespace that models live in."""

    namespace: str = "models"
    kserve: str = "0.20.0"
    """Version of the controller."""

    gateway: Gateway = Gateway()
    storage: Storage = Storage()
    registry: str = ""
    """Put before the names of Penstock's images: `ghcr.io/org`; empty: as they are."""

    version: str = __version__
    """Tag of Penstock's images."""

    runtime_class: str = ""
    """RuntimeClass of every pod; empty: the cluster's default."""

    cpu: Resources = Resources("1", "2Gi")
    """Of the CPU engine."""

    gpu: Resources = Resources("4", "32Gi")
    """Beside the devices."""

    offers: tuple[Offer, ...] = ()
    """Devices that its nodes have; none where they cannot be seen."""

    drain_s: int = 45
    """How long a removed pod goes on answering what it has begun, before its engine is told."""

    def image(self, name: str) -> str:
        """Return where one of Penstock's images is."""
        return f"{self.registry.rstrip('/')}/{name}:{self.version}".lstrip("/")
