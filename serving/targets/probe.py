"""What a cluster can do, asked before anything changes: by `penstock doctor`, and by every run."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from penstock.core.checks import Check
from penstock.core.spec import KServe, ModelSpec
from serving.cluster import Kind, Object
from serving.kserve import runtimes
from serving.kserve.facts import Facts, Gateway, Storage
from serving.kube import KubernetesCluster
from serving.kube.calls import Verb
from serving.kube.discovery import allocatable, may, nodes, served, server_version

OLDEST_KSERVE = (0, 17)
"""The first whose Standard mode is called so."""

SPLITS_CANARY = (0, 21)
"""The first whose `spec.canary[]` splits traffic: kserve#5912 came after 0.20."""

_CONFIG, _CONFIG_NAMESPACE = "inferenceservice-config", "kserve"
_MANAGER = "kserve-controller-manager"
_ROUTES: Mapping[str, tuple[Kind, ...]] = {
    "route": ("InferenceService", "HTTPRoute"),
    "llmisvc": ("LLMInferenceService", "HTTPRoute"),
    "standard": ("InferenceService", "HTTPRoute"),
}
_RIGHTS: tuple[tuple[Verb, Kind], ...] = (
    ("create", "Lease"),
    ("create", "ConfigMap"),
    ("list", "Pod"),
    ("create", "HTTPRoute"),
    ("update", "HTTPRoute"),
)


@dataclass(frozen=True, slots=True)
class Found:
    """What a cluster said."""

    server: str = ""
    """Version of the API server."""

    kinds: Mapping[Kind, tuple[str, ...]] = field(default_factory=dict)
    """Kind → versions in which it is served; none where it is not."""

    kserve: str = ""
    """Version of KServe's controller; empty where its Deployment cannot be seen."""

    ingress: Mapping[str, Any] = field(default_factory=dict)
    """KServe's own settings of ingress; empty where they cannot be read."""

    gateway: Object | None = None
    runtimes: tuple[str, ...] = ()
    """Of those that Penstock deploys, the ones that are there."""

    rights: Mapping[tuple[Verb, Kind], bool] = field(default_factory=dict)
    gpus: int | None = None
    """NVIDIA devices that all nodes can give; None where nodes cannot be listed."""


def look(cluster: KubernetesCluster, where: KServe) -> Found:
    """Ask a cluster; what may not be read stays unknown.

    Raises:
        ServingError: It does not answer.
        ConfigurationError: There is no way in.
    """
    api = cluster.api
    kinds: tuple[Kind, ...] = ("InferenceService", "LLMInferenceService", "HTTPRoute", "Gateway")
    found = {kind: served(api, kind) for kind in kinds}
    config = _unless_denied(lambda: _in(cluster, _CONFIG_NAMESPACE).get("ConfigMap", _CONFIG))
    ingress = json.loads(config["data"].get("ingress", "{}")) if config else {}
    gateway = None
    if found["Gateway"]:
        namespace, name = gateway_of(where, ingress)
        gateway = _unless_denied(lambda: _in(cluster, namespace).get("Gateway", name))
    manager = _unless_denied(lambda: _in(cluster, _CONFIG_NAMESPACE).get("Deployment", _MANAGER))
    served_kind: Kind = "LLMInferenceService" if where.mode == "llmisvc" else "InferenceService"
    rights: list[tuple[Verb, Kind]] = [("create", served_kind), ("delete", served_kind), *_RIGHTS]
    return Found(
        server=server_version(api),
        kinds=found,
        kserve=_tag(manager),
        ingress=ingress,
        gateway=gateway,
        runtimes=tuple(_runtimes(cluster)),
        rights={(verb, kind): may(api, verb, kind, cluster.namespace) for verb, kind in rights},
        gpus=_unless_denied(lambda: _gpus(cluster)),
    )


def mechanism(found: Found, where: KServe) -> str:
    """Return how traffic is split; `auto` prefers `route`, which every KServe can do."""
    if where.mode != "auto":
        return where.mode
    return "route" if found.kinds.get("InferenceService") else "llmisvc"


def facts_of(found: Found, where: KServe, storage: Storage) -> Facts:
    """Return what the objects depend on."""
    namespace, name = gateway_of(where, found.ingress)
    domain = found.ingress.get("ingressDomain") or Gateway().domain
    version = found.kserve or Facts().kserve
    return Facts(
        namespace=where.namespace,
        kserve=version,
        gateway=Gateway(name, namespace, domain),
        storage=storage,
        registry=where.images or "",
        runtime_class=where.runtime_class or "",
    )


def checks(found: Found, where: KServe, model: ModelSpec | None = None) -> Iterator[Check]:
    """Yield what was looked at, for a person; pure.

    Args:
        found: What the cluster said.
        where: What is wanted of it.
        model: What is to be served, if that is known.
    """
    yield Check("kubernetes", True, found.server)
    chosen = mechanism(found, where)
    yield from _kinds(found, chosen)
    yield _version(found)
    if chosen == "standard":
        yield _standard(found)
    yield from _gateway(found, where)
    if model is not None:
        yield _runtime(found, chosen, model)
        yield _devices(found, model)
    yield _rights(found, where)


def gateway_of(where: KServe, ingress: Mapping[str, Any]) -> tuple[str, str]:
    """Return namespace and name of the Gateway: the spec's, KServe's, or KServe's default."""
    default = f"{Gateway().namespace}/{Gateway().name}"
    text = where.gateway or ingress.get("kserveIngressGateway") or default
    namespace, _, name = text.partition("/")
    return namespace, name


def address_of(found: Found, where: KServe) -> str:
    """Return the gateway's URL; empty while it has none."""
    if where.address:
        return where.address
    addresses = (found.gateway or {}).get("status", {}).get("addresses", [])
    return f"http://{addresses[0]['value']}" if addresses else ""


def _kinds(found: Found, chosen: str) -> Iterator[Check]:
    for kind in _ROUTES[chosen]:
        versions = found.kinds.get(kind, ())
        product = "Gateway API" if kind == "HTTPRoute" else "KServe"
        yield Check(
            kind,
            bool(versions),
            ", ".join(versions) or f"the cluster does not serve it: {product} is not installed",
            "docs/how-to/install-on-a-cluster.md says what is needed, in which order",
        )


def _version(found: Found) -> Check:
    if not found.kserve:
        return Check("kserve", True, "version not known: its Deployment cannot be read")
    oldest = ".".join(map(str, OLDEST_KSERVE))
    ok = _numbers(found.kserve) >= OLDEST_KSERVE
    told = found.kserve if ok else f"{found.kserve} is too old; allowed: {oldest} and later"
    return Check("kserve", ok, told, f"upgrade KServe to {oldest} or later")


def _standard(found: Found) -> Check:
    ok = bool(found.kserve) and _numbers(found.kserve) >= SPLITS_CANARY
    told = found.kserve or "of unknown version"
    return Check(
        "mode standard",
        ok,
        "spec.canary splits traffic"
        if ok
        else f"KServe {told} deploys spec.canary but sends it no traffic (kserve#5912 came after "
        "0.20)",
        "leave target.kserve.mode at auto: mode route works with every KServe",
    )


def _gateway(found: Found, where: KServe) -> Iterator[Check]:
    namespace, name = gateway_of(where, found.ingress)
    if found.ingress and not found.ingress.get("enableGatewayApi"):
        yield Check(
            "kserve ingress",
            True,
            "KServe itself does not use Gateway API; Penstock's routes do",
        )
    if found.gateway is None:
        yield Check(
            "gateway",
            False,
            f"no Gateway {namespace}/{name}, or it may not be read",
            "create it, or name another in target.kserve.gateway; to read it: deploy/controller/"
            "gateway-reader.yaml",
        )
        return
    conditions = {c["type"]: c for c in found.gateway.get("status", {}).get("conditions", [])}
    programmed = conditions.get("Programmed", {})
    ok = programmed.get("status") == "True"
    yield Check(
        "gateway",
        ok,
        f"{namespace}/{name}" + ("" if ok else f" is not programmed: {_why(programmed)}"),
        "is its controller running? kubectl -n NAMESPACE describe gateway NAME",
    )
    address = address_of(found, where)
    yield Check(
        "gateway address",
        bool(address),
        address or "it has none",
        "set target.kserve.address to the URL by which it is reached from here",
    )


def _runtime(found: Found, chosen: str, model: ModelSpec) -> Check:
    needed = runtimes.engine(model).runtime
    if chosen == "llmisvc":
        return Check("runtime", True, f"{needed}, in the LLMInferenceService itself")
    return Check(
        "runtime",
        needed in found.runtimes,
        needed
        if needed in found.runtimes
        else f"no ServingRuntime {needed} in the namespace, and no ClusterServingRuntime",
        "kubectl apply -k deploy/runtimes"
        if needed == runtimes.CPU
        else "install KServe's runtimes (its chart kserve-runtime-configs)",
    )


def _devices(found: Found, model: ModelSpec) -> Check:
    wanted = runtimes.devices(model)
    if not wanted or found.gpus is None:
        return Check("gpus", True, "none wanted" if not wanted else "nodes cannot be listed")
    return Check(
        "gpus",
        found.gpus >= wanted,
        f"{found.gpus} on all nodes, {wanted} wanted per replica",
        "add nodes with GPUs, or the device plugin that announces them",
    )


def _rights(found: Found, where: KServe) -> Check:
    missing = [f"{verb} {kind}" for (verb, kind), allowed in found.rights.items() if not allowed]
    return Check(
        "rights",
        not missing,
        f"missing in namespace {where.namespace}: {', '.join(missing)}" if missing else "all",
        "bind the Role of deploy/runner to this account",
    )


def _runtimes(cluster: KubernetesCluster) -> Iterator[str]:
    for each in runtimes.ENGINES.values():
        name = each.runtime

        def there(name: str = name) -> bool:
            return (
                cluster.get("ServingRuntime", name) is not None
                or cluster.get("ClusterServingRuntime", name) is not None
            )

        if _unless_denied(there):
            yield name


def _gpus(cluster: KubernetesCluster) -> int:
    every = (allocatable(node).get("nvidia.com/gpu", "0") for node in nodes(cluster.api))
    return sum(map(int, every))


def _in(cluster: KubernetesCluster, namespace: str) -> KubernetesCluster:
    return KubernetesCluster(cluster.api, namespace)


def _unless_denied(ask: Callable[[], Any]) -> Any:
    """Return what is there; None where it may not be read, or its kind is not served."""
    from serving.kube.errors import Forbidden, NotServed

    try:
        return ask()
    except (Forbidden, NotServed):
        return None


def _tag(deployment: Object | None) -> str:
    if deployment is None:
        return ""
    images = [c["image"] for c in deployment["spec"]["template"]["spec"]["containers"]]
    tags = [re.search(r":v?(\d+\.\d+(\.\d+)?)", image) for image in images]
    return next((tag[1] for tag in tags if tag), "")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2])


def _why(condition: Mapping[str, Any]) -> str:
    return str(condition.get("message") or condition.get("reason") or "nothing said yet")
