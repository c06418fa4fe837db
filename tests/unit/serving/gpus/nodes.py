"""Nodes and pods as clusters show them.

Labels have the form of gpu-feature-discovery's own examples (k8s-device-plugin,
docs/gpu-feature-discovery/README.md) and of ROCm's node labeller (README.md).
"""

from __future__ import annotations

from typing import Any

from penstock.core.replica import Hardware
from serving.cluster import Object

NVIDIA, AMD = "nvidia.com/gpu", "amd.com/gpu"
TAINT = {"key": NVIDIA, "value": "present", "effect": "NoSchedule"}


def node(name: str, devices: dict[str, int], labels: dict[str, str], **spec: Any) -> Object:
    """Return a node with devices and labels; further arguments are its spec's."""
    amounts = {resource: str(count) for resource, count in devices.items()}
    return {
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, **labels}},
        "spec": spec,
        "status": {
            "allocatable": {"cpu": "96", "memory": "1Ti", "pods": "110", **amounts},
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }


def labelled(product: str, memory: int, count: int, **more: str) -> dict[str, str]:
    """Return the labels of a node with whole GPUs."""
    return {
        f"{NVIDIA}.compute.major": "9",
        f"{NVIDIA}.count": str(count),
        f"{NVIDIA}.family": "hopper",
        f"{NVIDIA}.machine": "NVIDIA-DGX-H100",
        f"{NVIDIA}.memory": str(memory),
        f"{NVIDIA}.product": product,
        f"{NVIDIA}.replicas": "1",
        f"{NVIDIA}.sharing-strategy": "none",
        "nvidia.com/mig.capable": "true",
        "nvidia.com/mig.strategy": "single",
        **{f"{NVIDIA}.{key}": value for key, value in more.items()},
    }


H100 = node("h", {NVIDIA: 8}, labelled("NVIDIA-H100-80GB-HBM3", 81559, 8), taints=[TAINT])
A100 = node("a", {NVIDIA: 8}, labelled("NVIDIA-A100-SXM4-40GB", 40960, 8))
L4 = node("l", {NVIDIA: 4}, labelled("NVIDIA-L4", 23034, 4))
L40S = node("s", {NVIDIA: 4}, labelled("NVIDIA-L40S", 46068, 4))
SINGLE = node("m", {NVIDIA: 56}, labelled("NVIDIA-A100-SXM4-80GB-MIG-1g.10gb", 9728, 56))
MIXED = node(
    "x",
    {NVIDIA: 4, "nvidia.com/mig-1g.10gb": 7, "nvidia.com/mig-3g.40gb": 2},
    {
        **labelled("NVIDIA-H100-80GB-HBM3", 81559, 4),
        "nvidia.com/mig.strategy": "mixed",
        "nvidia.com/mig-1g.10gb.count": "7",
        "nvidia.com/mig-1g.10gb.memory": "9728",
        "nvidia.com/mig-1g.10gb.product": "NVIDIA-H100-80GB-HBM3-MIG-1g.10gb",
        "nvidia.com/mig-3g.40gb.memory": "40448",
        "nvidia.com/mig-3g.40gb.product": "NVIDIA-H100-80GB-HBM3-MIG-3g.40gb",
    },
)
SLICED = node(
    "t",
    {NVIDIA: 40},
    labelled("NVIDIA-L4-SHARED", 23034, 4, replicas="10", **{"sharing-strategy": "time-slicing"}),
)
MPS = node(
    "p",
    {f"{NVIDIA}.shared": 20},
    labelled("NVIDIA-L4", 23034, 2, replicas="10", **{"sharing-strategy": "mps"}),
)
MI300X = node(
    "i",
    {AMD: 8},
    {
        f"{AMD}.device-id": "74a1",
        f"{AMD}.product-name": "AMD_Instinct_MI300X_OAM",
        f"{AMD}.vram": "192G",
    },
)
BARE = node("b", {NVIDIA: 2}, {})
EVERY = (H100, A100, L4, L40S, SINGLE, MIXED, SLICED, MPS, MI300X)


def pod(on: str, count: int = 1, resource: str = NVIDIA, **more: Any) -> Object:
    """Return a pod that has devices of a node; further arguments are its metadata's."""
    resources = {"requests": {resource: str(count)}, "limits": {resource: str(count)}}
    return {
        "metadata": {"name": "p", "uid": str(id(object())), **more},
        "spec": {"nodeName": on, "containers": [{"resources": resources}]},
        "status": {"phase": "Running"},
    }


def hardware(accelerator: str, **more: Any) -> Hardware:
    """Return a spec's hardware."""
    return Hardware.model_validate({"accelerator": accelerator, **more})
