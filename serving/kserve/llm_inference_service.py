"""The other mechanism: one LLMInferenceService per version, in one routing group.

KServe's controller writes the group's weights into an HTTPRoute per member,
`<version>-kserve-route`, and all of these claim the same paths below
`/publishers/<namespace>/models/<name>`: the gateway takes the oldest. Their weights cannot be
changed without failed requests (v0.20.0): a member whose own route was just written is not ready
until the gateway has accepted it (`IsHTTPRouteReady`), and the others' routes leave it out
meanwhile (`filterEligibleMembers`). If those have nothing themselves, all weights are 0, and a
gateway answers 500.

So **users are led by an HTTPRoute of ours**, which claims the same paths as exact ones: Gateway
API prefers those to KServe's prefixes. It changes in one write. The group's weights follow it, for
those who come in by KServe's other ways (its model header, other paths), and so that everything
stays as it is when ours is removed. Shares hold when ours **and** every member's route show them.

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
from serving.kserve import http_route as routes
from serving.kserve import runtimes, serving_runtimes, storage
from serving.kserve.facts import Facts
from serving.manifests import NAME, ROOT, VERSION, Release, service_name
from serving.runtimes.runtime import split

PORT = 8000
"""The controller's Service and presets have it."""

PATHS = ("/v1/chat/completions", "/v1/completions", "/v1/models")
"""What users ask the engine for. An HTTPRoute has 16 rules at most; with two versions that can be
reached alone these make nine."""

_SUFFIX = "-kserve-workload-svc"
_ROUTE = "-kserve-route"
_LONGEST = 63 - len(_SUFFIX)  # beyond, the controller shortens names by a hash


def llm_inference_service(
    spec: ModelSpec,
    release: Release,
    weight: int,
    facts: Facts,
    manifest: Manifest | None = None,
) -> Object:
    """Return the LLMInferenceService of one version; only its weight ever changes.

    Args:
        spec: What is served.
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
            "annotations": {**annotations, **runtimes.scraped(chosen, PORT)},
            "router": {"route": {"group": spec.name, "weight": weight}},
            **_pods(spec, release, facts, manifest),
        },
    }


def with_weight(obj: Object, weight: int) -> Object:
    """Return the LLMInferenceService with another share of its group."""
    route = {**obj["spec"]["router"]["route"], "weight": weight}
    return {**obj, "spec": {**obj["spec"], "router": {**obj["spec"]["router"], "route": route}}}


def weight_of(obj: Object) -> int:
    """Return the share that an LLMInferenceService asks for."""
    return int(obj["spec"]["router"]["route"]["weight"])


def http_route(name: str, weights: Mapping[str, int], facts: Facts) -> Object:
    """Return our HTTPRoute of a name, which leads users by KServe's own path of the group."""
    return routes.carrying(name, {"rules": _rules(name, weights, facts)}, facts)


def with_weights(route: Object, weights: Mapping[str, int], facts: Facts) -> Object:
    """Return our HTTPRoute with other shares, and everything else as it is."""
    rules = _rules(route["metadata"]["name"], weights, facts)
    return {**route, "spec": {**route["spec"], "rules": rules}}


def weights_of(route: Object) -> dict[str, int]:
    """Return LLMInferenceService to share, as users meet them: the inverse of `http_route`."""
    return routes.shares(route, _SUFFIX)


def carries(route: Object) -> bool:
    """Return whether an HTTPRoute leads to LLMInferenceServices."""
    return routes.leads_to(route, _SUFFIX)


def base(name: str, facts: Facts) -> str:
    """Return what stands before `/v1` in the group's URLs."""
    return f"/publishers/{facts.namespace}/models/{name}"


def route_name(service: str) -> str:
    """Return the HTTPRoute that the controller makes for a member."""
    return f"{service}{_ROUTE}"


def shown(route: Object) -> dict[str, int]:
    """Return LLMInferenceService to share, as one member's route has it."""
    owner = route["metadata"]["name"].removesuffix(_ROUTE)
    direct = f"/{route['metadata'].get('namespace', '')}/{owner}"
    return {
        ref["name"].removesuffix(_SUFFIX): int(ref.get("weight", 1))
        for rule in route["spec"].get("rules", [])
        if not _below(rule, direct)
        for ref in rule.get("backendRefs", [])
        if ref["name"].endswith(_SUFFIX)
    }


def observed(route: Object, members: Iterable[Object], facts: Facts) -> dict[str, int]:
    """Return the group's shares; nothing unless our route and all members' show the same, and hold.

    Args:
        route: Ours.
        members: KServe's, of the versions that are in ours.
        facts: The cluster.
    """
    wanted, theirs = weights_of(route), list(members)
    if routes.unobserved(route, facts):
        return {}
    if any(routes.unobserved(each, facts, elsewhere=True) for each in theirs):
        return {}
    return wanted if all(_given(shown(each)) == _given(wanted) for each in theirs) else {}


def _given(shares: Mapping[str, int]) -> dict[str, int]:
    """Return who gets something: who gets nothing may stand in a member's route, or not."""
    return {name: share for name, share in shares.items() if share}


def _rules(name: str, weights: Mapping[str, int], facts: Facts) -> list[Object]:
    doors = [_door(base(name, facts), path) for path in PATHS]
    return routes.rules(weights, _SUFFIX, PORT, doors)


def _door(before: str, path: str) -> Object:
    rewrite = {"path": {"type": "ReplaceFullPath", "replaceFullPath": path}}
    return {
        "matches": [{"path": {"type": "Exact", "value": f"{before}{path}"}}],
        "filters": [{"type": "URLRewrite", "urlRewrite": rewrite}],
    }


def _below(rule: Mapping[str, Any], prefix: str) -> bool:
    paths = [match.get("path", {}).get("value", "") for match in rule.get("matches", [])]
    return any(path == prefix or path.startswith(f"{prefix}/") for path in paths)


def _pods(spec: ModelSpec, release: Release, facts: Facts, manifest: Manifest | None) -> Object:
    """Return one pod, or the leader and the workers of a group of them.

    KServe makes a LeaderWorkerSet where there is a worker. How many pods it has is told as `data`
    over `dataLocal`, though these are stages of a pipeline: for `pipeline` KServe v0.20.0 asks for
    a preset that it does not ship (`config_merge.go`), and without either the group has one pod
    (`ParallelismSpec.GetSize`). Only the leader answers.
    """
    chosen, container = runtimes.engine(spec), _container(spec, release, facts, manifest)
    answering = {**container, **runtimes.probes(chosen, spec, PORT, manifest)}
    pod = {
        **runtimes.pod(spec, release, facts),
        "initContainers": [storage.init_container(release, facts, manifest)],
    }
    pod["volumes"] = [*pod["volumes"], *serving_runtimes.volumes(chosen.of)]
    template = {**pod, "containers": [answering]}
    if spec.hardware.nodes == 1:
        return {"template": template}
    worker = {**container, "args": [*container["args"], *chosen.of.worker_args]}
    tensor, _ = split(spec)
    return {
        "parallelism": {"tensor": tensor, "data": spec.hardware.nodes, "dataLocal": 1},
        "template": template,
        "worker": {**pod, "containers": [worker]},
    }


def _container(
    spec: ModelSpec, release: Release, facts: Facts, manifest: Manifest | None
) -> Object:
    """Return the engine's container, but for its probes."""
    chosen = runtimes.engine(spec)
    engine = serving_runtimes.container(chosen.of, facts, PORT)
    if not chosen.of.own:  # KServe's presets say the opposite, and these images run as root
        engine["securityContext"] = {**engine["securityContext"], "runAsNonRoot": False}
    instead = chosen.instead(spec)
    wait = f"import time; time.sleep({facts.drain_s})"
    return {
        "name": "main",
        **engine,
        **instead,
        "args": [*engine["args"], *chosen.args(spec)],
        "env": [*engine["env"], *instead.get("env", [])],
        "resources": runtimes.resources(spec, facts, storage.on_disk(release, manifest)),
        "volumeMounts": [*engine["volumeMounts"], storage.model_mount(release)],
        # the preset sleeps by `exec`, and the two merge: another action would be a second
        "lifecycle": {"preStop": {"exec": {"command": ["python3", "-c", wait]}}},
        **runtimes.LAST_WORDS,
    }
