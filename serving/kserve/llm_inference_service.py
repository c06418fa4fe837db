"""The other mechanism: one LLMInferenceService per version, in one routing group.

Its controller writes the weights into an HTTPRoute per member, `<version>-kserve-route`, and all
of these carry the same path, `/publishers/<namespace>/models/<name>`: the gateway takes the oldest
that claims it. So shares hold only when **every** member's route shows them. A member that is
stopped or not ready is left out of them (`isMemberRoutable`), whatever its weight says.

No `router.scheduler`: the backends are then Services, which every gateway can weigh; pools of the
inference extension are not.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from penstock.core.errors import ConfigurationError
from penstock.core.manifest import Manifest
from penstock.core.spec import ModelSpec
from serving.cluster import Object
from serving.kserve import http_route, runtimes, storage
from serving.kserve.facts import Facts
from serving.manifests import NAME, ROOT, VERSION, Release, service_name

PORT = 8000
"""The controller's Service and presets have it."""

_SERVICE = "-kserve-workload-svc"
_ROUTE = "-kserve-route"
_LONGEST = 63 - len(_SERVICE)  # beyond, the controller shortens names by a hash


def llm_inference_service(
    spec: ModelSpec,
    release: Release,
    weight: int,
    facts: Facts,
    manifest: Manifest | None = None,
) -> Object:
    """Return the LLMInferenceService of one version; only its weight ever changes.

    Args:
        spec: What is served, by the CPU engine.
        release: The version, and where its files are.
        weight: Its share of the group, relative to the sum; KServe's documents warn against
            starting at 0, because gateways then have no connection ready.
        facts: The cluster.
        manifest: The checkpoint's files, if known: see `serving.kserve.storage`.

    Raises:
        ConfigurationError: This mechanism cannot serve it.
    """
    name = service_name(spec.name, release.version)
    chosen = runtimes.engine(spec)
    if chosen.runtime != runtimes.CPU:
        raise ConfigurationError(
            f"runtime {spec.runtime}: LLMInferenceServices are written for the CPU engine only",
            hint="use InferenceServices behind an HTTPRoute, the default",
        )
    if len(name) > _LONGEST:
        raise ConfigurationError(
            f"{name}: longer than {_LONGEST} characters, which LLMInferenceServices cannot be",
            hint="choose a shorter name",
        )
    labels = {NAME: spec.name, VERSION: str(release.version)}
    annotations = {ROOT: str(release.root)}
    return {
        "apiVersion": "serving.kserve.io/v1alpha2",
        "kind": "LLMInferenceService",
        "metadata": {
            "name": name,
            "namespace": facts.namespace,
            "labels": labels,
            "annotations": {**annotations, "serving.kserve.io/disable-localmodel": "true"},
        },
        "spec": {
            "model": {"name": spec.name, "uri": storage.storage_uri(release)},
            "storageInitializer": {"enabled": False},  # ours is in the template
            "replicas": spec.replicas,
            "labels": labels,  # these two reach the pods, the object's own do not
            "annotations": {**annotations, **runtimes.scraped(PORT)},
            "router": {"route": {"group": spec.name, "weight": weight}},
            "template": _template(spec, release, facts, manifest),
        },
    }


def with_weight(obj: Object, weight: int) -> Object:
    """Return the LLMInferenceService with another share of its group."""
    route = {**obj["spec"]["router"]["route"], "weight": weight}
    return {**obj, "spec": {**obj["spec"], "router": {**obj["spec"]["router"], "route": route}}}


def weight_of(obj: Object) -> int:
    """Return the share that an LLMInferenceService asks for."""
    return int(obj["spec"]["router"]["route"]["weight"])


def alone(services: Iterable[str]) -> list[Object]:
    """Return rules of an HTTPRoute of ours that lead a replay to the version it names."""
    return http_route.alone(
        {name: http_route.backend(f"{name}{_SERVICE}", PORT) for name in services}
    )


def route_name(service: str) -> str:
    """Return the HTTPRoute that the controller makes for a member."""
    return f"{service}{_ROUTE}"


def shown(route: Object) -> dict[str, int]:
    """Return LLMInferenceService to share, as one member's route has it."""
    owner = route["metadata"]["name"].removesuffix(_ROUTE)
    direct = f"/{route['metadata'].get('namespace', '')}/{owner}"
    return {
        ref["name"].removesuffix(_SERVICE): int(ref.get("weight", 1))
        for rule in route["spec"].get("rules", [])
        if not _below(rule, direct)
        for ref in rule.get("backendRefs", [])
        if ref["name"].endswith(_SERVICE)
    }


def observed(routes: Iterable[Object], facts: Facts) -> dict[str, int]:
    """Return the group's shares; nothing unless all members' routes show the same, and hold."""
    found = list(routes)
    if not found or any(http_route.unobserved(route, facts) for route in found):
        return {}
    first, *others = [shown(route) for route in found]
    return first if all(other == first for other in others) else {}


def _below(rule: Mapping[str, Any], prefix: str) -> bool:
    paths = [match.get("path", {}).get("value", "") for match in rule.get("matches", [])]
    return any(path == prefix or path.startswith(f"{prefix}/") for path in paths)


def _template(spec: ModelSpec, release: Release, facts: Facts, manifest: Manifest | None) -> Object:
    chosen = runtimes.engine(spec)
    engine = runtimes.cpu_container(facts, PORT)
    wait = f"import time; time.sleep({facts.drain_s})"
    return {
        **runtimes.pod(spec, release, facts),
        "initContainers": [storage.init_container(release, facts, manifest)],
        "containers": [
            {
                "name": "main",
                **engine,
                "args": [*engine["args"], *chosen.args(spec)],
                "resources": runtimes.resources(spec, facts),
                "volumeMounts": [*engine["volumeMounts"], storage.model_mount(release)],
                # the preset sleeps by `exec`, and the two merge: another action would be a second
                "lifecycle": {"preStop": {"exec": {"command": ["python3", "-c", wait]}}},
                **runtimes.probes(chosen, spec, PORT),
            }
        ],
    }
