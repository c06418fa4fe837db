"""What runs a version: Penstock's CPU engine, or a runtime that KServe ships.

How KServe puts a container together (v0.20.0, `isvcutils.MergeRuntimeContainers`): a strategic
merge of the runtime's container and the InferenceService's, whose arguments follow the runtime's;
where an option stands twice, the engines take the last. Of a runtime's *pod* it takes only
containers, volumes, node selector, affinity, tolerations, pull secrets and scheduler
(`MergePodSpec`): RuntimeClass, grace period and init containers are the InferenceService's.
`{{.Name}}` would be the InferenceService's name, which has the version in it, so the name that
clients ask for is always an argument of the InferenceService.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from penstock.core.errors import ConfigurationError
from penstock.core.spec import ModelSpec
from serving.cluster import Object
from serving.kserve.facts import Facts, Resources
from serving.kserve.storage import MODEL_DIR, RESTRICTED, scratch_mounts, volumes
from serving.manifests import NAME, VERSION, Release

CPU = "penstock-cpu"
CPU_IMAGE = "penstock-engine-python"
CPU_COMMAND = ("python3", "-m", "serving.engine")
PORT = 8080
CPU_DRAIN_S = 20
"""How long the CPU engine finishes what it has begun, once told to end."""

_PROBE_S = 2
_GRACE_S = 5


@dataclass(frozen=True, slots=True)
class Engine:
    """A runtime, as KServe and its engine name things."""

    runtime: str
    model_format: str
    name_option: str
    ready_path: str
    alive_path: str

    def args(self, spec: ModelSpec) -> list[str]:
        """Return the arguments that follow the runtime's own.

        Raises:
            ConfigurationError: KServe would read one of them as a template.
        """
        templates = [arg for arg in spec.runtime_args if "{{" in arg]
        if templates:
            raise ConfigurationError(
                f"runtime_args: found {templates[0]!r}; KServe expands {{{{…}}}} in arguments",
                hint="put it into a file of the checkpoint, or into the runtime's image",
            )
        split = spec.hardware.count if self.runtime == "kserve-vllmserver" else 1
        tensor_parallel = [f"--tensor-parallel-size={split}"] if split > 1 else []
        return [f"{self.name_option}={spec.name}", *tensor_parallel, *spec.runtime_args]


ENGINES = {
    "cpu": Engine(CPU, "huggingface", "--model-name", "/ready", "/health"),
    "vllm": Engine("kserve-vllmserver", "vLLM", "--served-model-name", "/v1/models", "/health"),
    "huggingface": Engine(
        "kserve-huggingfaceserver",
        "huggingface",
        "--model_name",
        "/v2/health/ready",
        "/v2/health/live",
    ),
}


def engine(spec: ModelSpec) -> Engine:
    """Return what runs a spec.

    Raises:
        ConfigurationError: Nothing that Penstock can deploy does.
    """
    on_cpu, runtime = spec.hardware.accelerator == "cpu", spec.engine_name
    if runtime not in ENGINES:
        raise ConfigurationError(
            f"runtime {runtime}: this version does not deploy it on KServe; allowed: "
            f"{', '.join(ENGINES)}",
            hint="set runtime: vllm, which serves the same checkpoints",
        )
    if runtime == "cpu" and not on_cpu:
        raise ConfigurationError(
            f"runtime cpu cannot use {spec.hardware.accelerator}",
            hint="set runtime: auto, or hardware.accelerator: cpu",
        )
    return ENGINES[runtime]


def devices(spec: ModelSpec) -> int:
    """Return how many NVIDIA devices one pod needs."""
    return 0 if spec.hardware.accelerator == "cpu" else spec.hardware.count


def resources(spec: ModelSpec, facts: Facts) -> Object:
    """Return the engine container's resources."""
    count = devices(spec)
    usual = facts.gpu if count else facts.cpu
    asked = Resources(spec.hardware.cpu or usual.cpu, spec.hardware.memory or usual.memory)
    return asked.to_object(count)


def probes(chosen: Engine, spec: ModelSpec, port: int = PORT) -> Object:
    """Return probes of the engine's own endpoints; starting may take `rollout.ready_timeout_s`."""
    tries = math.ceil(spec.rollout.ready_timeout_s / _PROBE_S)
    return {
        "startupProbe": _probe(chosen.ready_path, port, failures=tries),
        "readinessProbe": _probe(chosen.ready_path, port, failures=2),
        "livenessProbe": {**_probe(chosen.alive_path, port, failures=6), "periodSeconds": 10},
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
    if labels := facts.nodes.get(spec.hardware.accelerator):
        fields["nodeSelector"] = dict(labels)
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


def scraped(port: int) -> dict[str, str]:
    """Return the annotations by which a Prometheus finds a pod's metrics."""
    return {
        "prometheus.io/scrape": "true",
        "prometheus.io/port": str(port),
        "prometheus.io/path": "/metrics",
    }


def cpu_container(facts: Facts, port: int = PORT) -> Object:
    """Return the CPU engine's container, but for its name and what a version adds."""
    return {
        "image": facts.image(CPU_IMAGE),
        "command": list(CPU_COMMAND),
        "args": [MODEL_DIR, "--host=0.0.0.0", f"--port={port}"],
        "env": [{"name": "HOME", "value": "/tmp"}],  # noqa: S108 - of a container of its own
        "ports": [{"name": "http1", "containerPort": port, "protocol": "TCP"}],
        "securityContext": RESTRICTED,
        "volumeMounts": scratch_mounts(),
    }


def cpu_runtime(facts: Facts) -> Object:
    """Return the ServingRuntime of the CPU engine; the namespace has one, for all models.

    It is never chosen by itself (`autoSelect: false`), and its volumes are the InferenceService's.
    """
    return {
        "apiVersion": "serving.kserve.io/v1alpha1",
        "kind": "ServingRuntime",
        "metadata": {
            "name": CPU,
            "namespace": facts.namespace,
            "labels": {NAME: CPU},
        },
        "spec": {
            "supportedModelFormats": [
                {"name": "huggingface", "version": "1", "autoSelect": False},
            ],
            "protocolVersions": ["v1", "v2"],
            "containers": [
                {
                    "name": "kserve-container",
                    **cpu_container(facts),
                    "resources": facts.cpu.to_object(),
                }
            ],
        },
    }


def _probe(path: str, port: int, *, failures: int) -> Object:
    return {
        "httpGet": {"path": path, "port": port, "scheme": "HTTP"},
        "periodSeconds": _PROBE_S,
        "timeoutSeconds": 2,
        "failureThreshold": failures,
        "successThreshold": 1,
    }
