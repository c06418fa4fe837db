"""ServingRuntimes, ClusterServingRuntimes and presets of LLMInferenceServices, from the runtimes.

What holds for one model stands in its InferenceService, whose arguments, variables, probes and
resources KServe merges over these: see `serving.kserve.runtimes`. The probes here are for people
who use a runtime by themselves; they wait as long as the largest model takes.
"""

from __future__ import annotations

from serving.cluster import Object
from serving.kserve.facts import Facts
from serving.kserve.storage import RESTRICTED, scratch_mounts
from serving.manifests import NAME
from serving.runtimes.launch import probe_failures, start_budget_s
from serving.runtimes.runtime import PORT, Runtime

LLM_PORT = 8000
"""LLMInferenceServices' controller and presets have it."""

_MODEL_NAME = "{{ .Spec.Model.Name }}"
_TENSOR = (
    "{{ if and .Spec.Parallelism .Spec.Parallelism.Tensor }}"
    "{{ .Spec.Parallelism.Tensor }}{{ else }}1{{ end }}"
)
_LARGEST_BYTES = 140_000_000_000
"""70 billion weights of two bytes."""

_PERIOD_S = 10
_SHM = "penstock-shm"
_CONFINED: Object = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}
"""Engines' own images run as root, and write into themselves: no more than this holds for all."""


def image(runtime: Runtime, facts: Facts) -> str:
    """Return the engine's image: Penstock's own come from the registry that the cluster uses."""
    return facts.image(runtime.image) if runtime.own else runtime.image


def container(runtime: Runtime, facts: Facts, port: int = PORT) -> Object:
    """Return an engine's container, but for its name and what a model adds."""
    found: Object = {
        "image": image(runtime, facts),
        "command": list(runtime.command),
        "args": [word.replace(f"port={PORT}", f"port={port}") for word in runtime.args],
        "env": [{"name": name, "value": value} for name, value in runtime.env.items()],
        "ports": [{"name": "http1", "containerPort": port, "protocol": "TCP"}],
        "securityContext": RESTRICTED if runtime.own else _CONFINED,
    }
    mounts = scratch_mounts() if runtime.own else []
    if "gpu" in runtime.matrix:
        mounts = [*mounts, {"name": _SHM, "mountPath": "/dev/shm"}]  # noqa: S108 - a pod's own
    return {**found, "volumeMounts": mounts}


def volumes(runtime: Runtime) -> list[Object]:
    """Return what the engine's own mounts name.

    Processes of several devices exchange tensors in `/dev/shm`, where a pod has 64 MiB otherwise.
    """
    return [{"name": _SHM, "emptyDir": {"medium": "Memory"}}] if "gpu" in runtime.matrix else []


def probes(runtime: Runtime, port: int = PORT) -> Object:
    """Return probes that any model of the runtime passes in time."""
    budget = start_budget_s(runtime, _LARGEST_BYTES)
    return {
        "startupProbe": probe(runtime.ready, port, probe_failures(budget, _PERIOD_S)),
        "readinessProbe": probe(runtime.ready, port, 3),
        "livenessProbe": probe(runtime.alive, port, 6),
    }


def probe(path: str, port: int, failures: int, period_s: int = _PERIOD_S) -> Object:
    """Return a probe of one of the engine's own endpoints."""
    return {
        "httpGet": {"path": path, "port": port, "scheme": "HTTP"},
        "periodSeconds": period_s,
        "timeoutSeconds": 2,
        "failureThreshold": failures,
        "successThreshold": 1,
    }


def serving_runtime(runtime: Runtime, facts: Facts) -> Object:
    """Return the runtime for one namespace."""
    obj = cluster_serving_runtime(runtime, facts)
    metadata = {**obj["metadata"], "namespace": facts.namespace}
    return {**obj, "kind": "ServingRuntime", "metadata": metadata}


def cluster_serving_runtime(runtime: Runtime, facts: Facts) -> Object:
    """Return the runtime for a whole cluster; it is never chosen by itself."""
    gpu = "gpu" in runtime.matrix
    metadata: Object = {"name": runtime.name, "labels": {NAME: runtime.name}}
    if runtime.server_type:
        metadata["annotations"] = {"serving.kserve.io/server-type": runtime.server_type}
    body: Object = {
        "annotations": {
            "prometheus.kserve.io/port": str(runtime.metrics_port),
            "prometheus.kserve.io/path": runtime.metrics,
        },
        "supportedModelFormats": [
            {"name": runtime.model_format, "version": "1", "autoSelect": False}
        ],
        "protocolVersions": ["v1", "v2"],  # no word for OpenAI's
        "containers": [
            {
                "name": "kserve-container",
                **container(runtime, facts),
                **probes(runtime),
                "resources": (facts.gpu if gpu else facts.cpu).to_object(),
            }
        ],
    }
    if gpu:
        body["volumes"] = volumes(runtime)
    return {
        "apiVersion": "serving.kserve.io/v1alpha1",
        "kind": "ClusterServingRuntime",
        "metadata": metadata,
        "spec": body,
    }


def preset(runtime: Runtime, facts: Facts) -> Object:
    """Return the LLMInferenceServiceConfig that an LLMInferenceService may name in `baseRefs`.

    KServe's own presets take what image and arguments its release has; this has the pinned ones.
    """
    engine = container(runtime, facts, LLM_PORT)
    args = [f"{runtime.name_option}={_MODEL_NAME}"]
    if runtime.tensor_option:
        args.append(f"{runtime.tensor_option}={_TENSOR}")
    return {
        "apiVersion": "serving.kserve.io/v1alpha2",
        "kind": "LLMInferenceServiceConfig",
        "metadata": {
            "name": f"penstock-llm-{runtime.key}",
            "namespace": facts.namespace,
            "labels": {NAME: runtime.name},
        },
        "spec": {
            "template": {
                "containers": [
                    {
                        "name": "main",
                        **engine,
                        "args": [*engine["args"], *args],
                        **probes(runtime, LLM_PORT),
                        "resources": facts.gpu.to_object(),
                    }
                ],
                "volumes": volumes(runtime),
            }
        },
    }
