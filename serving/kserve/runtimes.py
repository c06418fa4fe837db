"""What a version adds to its runtime: arguments, variables, probes, resources, and its pod.

How KServe puts a container together (v0.20.0, `isvcutils.MergeRuntimeContainers`): a strategic
merge of the runtime's container and the InferenceService's, whose arguments follow the runtime's.
Of a runtime's *pod* it takes only containers, volumes, node selector, affinity, tolerations, pull
secrets and scheduler (`MergePodSpec`): RuntimeClass, grace period and init containers are the
InferenceService's. `{{.Name}}` would be the InferenceService's name, which has the version in it,
so the name that clients ask for is always the InferenceService's to say.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from penstock.core.manifest import Manifest
from penstock.core.spec import ModelSpec
from serving.cluster import Object
from serving.gpus import claims
from serving.gpus.ask import ask
from serving.gpus.offers import AMD, NVIDIA
from serving.kserve import serving_runtimes
from serving.kserve.facts import Facts, Resources
from serving.kserve.storage import volumes
from serving.manifests import NAME, VERSION, Release
from serving.runtimes.catalog import RUNTIMES, runtime_of
from serving.runtimes.launch import launch, probe_failures, ready_budget_s, start_budget_s
from serving.runtimes.runtime import PORT, Runtime

CPU = RUNTIMES["cpu"].name
CPU_IMAGE = RUNTIMES["cpu"].image
CPU_DRAIN_S = 20
"""How long the CPU engine finishes what it has begun, once told to end."""

LAST_WORDS = {"terminationMessagePolicy": "FallbackToLogsOnError"}
"""An engine that fails leaves the end of its log in the pod's status, where the reason is read."""

_DISK, _DISK_MI = 1.02, 1024
"""What a checkpoint takes on disk, as a multiple of its bytes, and MiB for logs beside."""

_PROBE_S = 2
_GRACE_S = 5


@dataclass(frozen=True, slots=True)
class Engine:
    """A runtime, as one version uses it."""

    of: Runtime

    @property
    def runtime(self) -> str:
        """Name of its ServingRuntime or ClusterServingRuntime."""
        return self.of.name

    def args(self, spec: ModelSpec) -> list[str]:
        """Return the arguments that follow the runtime's own.

        Raises:
            ConfigurationError: The engine cannot do it, or is told what it does not know.
        """
        return list(launch(spec).args)

    def instead(self, spec: ModelSpec) -> Object:
        """Return what replaces the runtime's own: its image, and variables its command reads."""
        made = launch(spec)
        image: Object = {"image": made.image} if made.image else {}
        env = [{"name": name, "value": value} for name, value in made.env.items()]
        return {**image, "env": env} if env else image


ENGINES = {key: Engine(each) for key, each in RUNTIMES.items() if not each.refused}


def engine(spec: ModelSpec) -> Engine:
    """Return what runs a spec.

    Raises:
        ConfigurationError: Nothing that Penstock rolls out does.
    """
    return ENGINES[runtime_of(spec).key]


def devices(spec: ModelSpec) -> int:
    """Return how many devices one pod needs."""
    return 0 if spec.hardware.accelerator == "cpu" else spec.hardware.per_node


def resources(spec: ModelSpec, facts: Facts, manifest: Manifest | None = None) -> Object:
    """Return the engine container's resources.

    Args:
        spec: What is served.
        facts: The cluster.
        manifest: Files that lie on the node's own disk, if they do and are known.
    """
    usual = facts.gpu.beside(devices(spec)) if devices(spec) else facts.cpu
    amounts = Resources(spec.hardware.cpu or usual.cpu, spec.hardware.memory or usual.memory)
    wanted = ask(spec.hardware, facts.offers)
    found = amounts.to_object(wanted.resource, wanted.count)
    if manifest is not None:  # else a node that fills up ends the pod that has most there
        size_mi = math.ceil(manifest.size_bytes / 2**20 * _DISK) + _DISK_MI
        found["requests"] |= {"ephemeral-storage": f"{size_mi}Mi"}
    return found | claims.of_container() if spec.hardware.claim == "dra" else found


def pinned(chosen: Engine, spec: ModelSpec, facts: Facts) -> Object:
    """Return what keeps KServe from taking an image's build for a CPU.

    It does where it sees no device (v0.20.0, `UpdateImageTag`, `IsGPUEnabled`): it knows
    `nvidia.com/gpu` and `nvidia.com/mig-…`, and no claim and no shared device. AMD's is not known
    to it either; its image is a person's, who pins it by digest (docs/gpus.md).
    """
    wanted, tag = ask(spec.hardware, facts.offers), chosen.of.image.rpartition(":")[2]
    seen = wanted.resource == NVIDIA or wanted.resource.startswith("nvidia.com/mig-")
    if not devices(spec) or not chosen.of.server_type or seen or wanted.tolerated == AMD:
        return {}
    build = "-gpu" if chosen.of.server_type == "huggingfaceserver" else ""
    return {"runtimeVersion": f"{tag}{build}"}


def probes(
    chosen: Engine, spec: ModelSpec, port: int = PORT, manifest: Manifest | None = None
) -> Object:
    """Return probes of the engine's own endpoints.

    Starting may take as long as becoming ready may, and as long as the weights need, if that is
    more: a pod that starts again later is not waited for by anybody.
    """
    size = manifest.size_bytes if manifest is not None else 0
    budget = max(ready_budget_s(spec, size), start_budget_s(chosen.of, size))
    starting = probe_failures(budget, _PROBE_S)
    probe, ready = serving_runtimes.probe, chosen.of.ready
    return {
        "startupProbe": probe(ready, port, starting, _PROBE_S),
        "readinessProbe": probe(ready, port, 2, _PROBE_S),
        "livenessProbe": probe(chosen.of.alive, port, 6, 10),
    }


def grace_s(facts: Facts) -> int:
    """Return after how many seconds a removed pod is killed, if it has not ended by then."""
    return facts.drain_s + CPU_DRAIN_S + _GRACE_S


def pod(spec: ModelSpec, release: Release, facts: Facts) -> Object:
    """Return the fields of the pod that no runtime can set, without containers."""
    fields: Object = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
        "terminationGracePeriodSeconds": grace_s(facts),
        "volumes": volumes(release),
    }
    if facts.runtime_class:
        fields["runtimeClassName"] = facts.runtime_class
    fields |= ask(spec.hardware, facts.offers).to_object()
    if spec.hardware.claim == "dra":
        fields |= claims.of_pod(spec.hardware)
    if spec.replicas > 1:
        fields["topologySpreadConstraints"] = [
            {
                "maxSkew": 1,
                "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": {NAME: spec.name, VERSION: str(release.version)}},
            }
        ]
    return fields


def scraped(chosen: Engine, port: int = PORT) -> dict[str, str]:
    """Return the annotations by which a Prometheus, and Penstock, find a pod's metrics.

    An engine counts where it answers unless it has a port for that, whose number never changes.
    """
    own = chosen.of.metrics_port
    return {
        "prometheus.io/scrape": "true",
        "prometheus.io/port": str(port if own == PORT else own),
        "prometheus.io/path": chosen.of.metrics,
    }


def cpu_container(facts: Facts, port: int = PORT) -> Object:
    """Return the CPU engine's container, but for its name and what a version adds."""
    return serving_runtimes.container(RUNTIMES["cpu"], facts, port)


def cpu_runtime(facts: Facts) -> Object:
    """Return the ServingRuntime of the CPU engine; the namespace has one, for all models."""
    return serving_runtimes.serving_runtime(RUNTIMES["cpu"], facts)
