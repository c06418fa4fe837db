"""A training on many devices as objects of Kubeflow Trainer 2, and what their status says; pure.

One TrainingRuntime per training carries image, volume and resources; the TrainJob refers to it. So
only fields are written that every release from 2.0 on has: how a TrainJob itself changes pods was
renamed in 2.1 and again in 2.2. torchrun starts the processes, for DeepSpeed too: its environment
(PET_NNODES, PET_MASTER_ADDR, …) is Trainer's.

Source: kubeflow/trainer v2.0.0 to v2.3.0, manifests/base/crds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Literal

from penstock.core.errors import ConfigurationError
from penstock.core.training import Distributed
from serving.cluster import Object

API_VERSION = "trainer.kubeflow.org/v1alpha1"
COMMAND = ("torchrun", "-m", "components.training.node")
REQUEST, LINES, RESULT, ERROR = "request.json", "lines.jsonl", "result.json", "error.json"
FOLLOWED = "followed"
"""Touched by whoever follows the job."""

WEIGHTS = "weights"
"""What lies in a training's folder: what is asked, and what the first process tells and makes."""

_STEP = {"trainer.kubeflow.org/trainjob-ancestor-step": "trainer"}
_CONTAINER = "node"  # Trainer puts the TrainJob's fields into the container of this name
_USER = 10001
_HOME = "penstock-home"
_SHARED_MEMORY = "shared-memory"


@dataclass(frozen=True, slots=True)
class Job:
    """One training on many devices."""

    name: str
    """Of both objects."""

    namespace: str
    image: str
    folder: str
    """Where its request lies, below the volume's mount."""

    where: Distributed


def name_of(model: str, digest: str) -> str:
    """Return the name of a training: the same work has the same name.

    Args:
        model: Of the registered model; at most 40 characters.
        digest: Of what goes into the training, in hexadecimal.
    """
    return f"{model}-{digest[:8]}"


def objects(job: Job) -> list[Object]:
    """Return what is created, in order: a TrainingRuntime, unless one is named, and the TrainJob.

    Raises:
        ConfigurationError: The folder does not lie on the volume.
    """
    require_shared([job.folder], job.where)
    runtime = [] if job.where.runtime else [_runtime(job)]
    return [*runtime, _train_job(job)]


def require_shared(paths: Sequence[str], where: Distributed) -> None:
    """Raise for paths that the job's pods would not see."""
    _, mount = where.claim
    for path in paths:
        if not PurePosixPath(path).is_relative_to(mount):
            raise ConfigurationError(
                f"training.distributed.volume: {path} does not lie below {mount}, so pods of the "
                "job would not see it; allowed: the claim that holds PENSTOCK_HOME, and data below "
                "it",
                hint=f"set PENSTOCK_HOME below {mount}, or correct the volume",
            )


def deepspeed(where: Distributed | None) -> dict[str, Any] | None:
    """Return DeepSpeed's configuration; None where it is not used.

    `auto` takes the trainer's own number, so that nothing is said twice. Source: transformers'
    documentation, "DeepSpeed".
    """
    if where is None or where.strategy == "torchrun":
        return None
    stage = 2 if where.strategy == "deepspeed-zero2" else 3
    zero: dict[str, Any] = {"stage": stage, "overlap_comm": True, "contiguous_gradients": True}
    if stage == 3:
        zero |= {
            "stage3_prefetch_bucket_size": "auto",
            "stage3_param_persistence_threshold": "auto",
            # else the weights at the end would be one process's part of them
            "stage3_gather_16bit_weights_on_model_save": True,
        }
    return {
        "zero_optimization": zero,
        "bf16": {"enabled": "auto"},
        "gradient_clipping": "auto",
        "gradient_accumulation_steps": "auto",
        "train_batch_size": "auto",
        "train_micro_batch_size_per_gpu": "auto",
    }


@dataclass(frozen=True, slots=True)
class State:
    """How far a TrainJob is."""

    phase: Literal["pending", "suspended", "running", "succeeded", "failed"]
    reason: str
    """One sentence."""


def state_of(job: Object) -> State:
    """Return what a TrainJob's status says.

    Args:
        job: As the cluster has it; without a status nobody has looked at it yet.
    """
    status = job.get("status") or {}
    true = {each["type"]: each for each in status.get("conditions", ()) if each["status"] == "True"}
    if "Failed" in true:
        return State("failed", _told(true["Failed"]))
    if "Complete" in true:
        return State("succeeded", _told(true["Complete"]))
    if "Suspended" in true:
        return State("suspended", _told(true["Suspended"]))
    jobs = status.get("jobsStatus", ())
    active = sum(each.get("active", 0) for each in jobs)
    if active:
        ready = sum(each.get("ready", 0) for each in jobs)
        return State("running", f"{active} jobs are active, {ready} ready")
    return State("pending", "Trainer has not started its pods")


def _told(condition: Object) -> str:
    words = [condition.get("reason", ""), condition.get("message", "")]
    return ": ".join(word for word in words if word) or str(condition["type"])


def _train_job(job: Job) -> Object:
    where = job.where
    kind = "ClusterTrainingRuntime" if where.runtime else "TrainingRuntime"
    group = API_VERSION.partition("/")[0]
    return {
        "apiVersion": API_VERSION,
        "kind": "TrainJob",
        "metadata": {"name": job.name, "namespace": job.namespace, "labels": _LABELS},
        "spec": {
            "runtimeRef": {"apiGroup": group, "kind": kind, "name": where.runtime or job.name},
            "trainer": {
                "image": job.image,
                "command": list(COMMAND),
                "args": [f"{job.folder}/{REQUEST}"],
                "numNodes": where.nodes,
                "numProcPerNode": where.devices_per_node,
                "resourcesPerNode": _resources(where),
            },
        },
    }


_LABELS = {"app.kubernetes.io/managed-by": "penstock"}


def _runtime(job: Job) -> Object:
    claim, mount = job.where.claim
    container = {
        "name": _CONTAINER,
        "image": job.image,
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        },
        # caches of libraries would else go to a home folder that is not writable
        "env": [{"name": "HOME", "value": "/tmp"}, {"name": "HF_HUB_OFFLINE", "value": "1"}],  # noqa: S108
        "volumeMounts": [
            {"name": _HOME, "mountPath": mount},
            {"name": _SHARED_MEMORY, "mountPath": "/dev/shm"},  # noqa: S108 - NCCL's
        ],
    }
    pod = {
        "automountServiceAccountToken": False,
        "restartPolicy": "Never",
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": _USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": [
            {"name": _HOME, "persistentVolumeClaim": {"claimName": claim}},
            {"name": _SHARED_MEMORY, "emptyDir": {"medium": "Memory"}},
        ],
    }
    replicated = {
        "name": "node",
        "template": {
            "metadata": {"labels": _STEP},
            "spec": {"backoffLimit": 0, "template": {"spec": pod}},
        },
    }
    return {
        "apiVersion": API_VERSION,
        "kind": "TrainingRuntime",
        "metadata": {"name": job.name, "namespace": job.namespace, "labels": _LABELS},
        "spec": {
            # processes per node: the TrainJob says it; 2.3 has no field for it here
            "mlPolicy": {"numNodes": job.where.nodes, "torch": {}},
            "template": {"spec": {"replicatedJobs": [replicated]}},
        },
    }


def _resources(where: Distributed) -> Object:
    wanted: dict[str, Any] = {"cpu": where.cpu, "memory": where.memory}
    if where.resource:
        wanted[where.resource] = where.devices_per_node
    return {"requests": wanted, "limits": wanted}
