"""What a cluster must be able to do, judged by what it said of itself. No I/O."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from penstock.core.checks import Check
from penstock.core.spec import KServe, ModelSpec
from serving.cluster import Kind, Object
from serving.gpus.offers import Offer, suitable
from serving.kserve import runtimes, standard
from serving.kserve.facts import Facts, Gateway, Storage
from serving.kube.calls import Verb

OLDEST_KSERVE = (0, 17)
"""The first whose Standard mode is called so."""

ISTIO_GATEWAY = ("ingressGateway", "knative-serving/knative-ingress-gateway")
"""KServe's setting that names an Istio Gateway, and what it is unless somebody says otherwise."""

SPLITS_CANARY = (0, 21)
"""The first whose `spec.canary[]` splits traffic: kserve#5912 came after 0.20."""

_PRODUCTS: Mapping[Kind, str] = {"HTTPRoute": "Gateway API", "VirtualService": "Istio"}

_ROUTES: Mapping[str, tuple[Kind, ...]] = {
    "route": ("InferenceService", "HTTPRoute"),
    "llmisvc": ("LLMInferenceService", "HTTPRoute"),
    "istio": ("InferenceService", "VirtualService"),
    "standard": ("InferenceService", "HTTPRoute"),
}

SERVING: dict[Kind, tuple[Verb, ...]] = {
    "InferenceService": ("get", "list", "watch", "create", "update", "delete"),
    "LLMInferenceService": ("get", "list", "watch", "create", "update", "delete"),
    "ServingRuntime": ("get",),
}
"""What a mechanism needs of its own kinds; `deploy/runner` grants both mechanisms' rights."""

RIGHTS: dict[Kind, tuple[Verb, ...]] = {
    "HTTPRoute": ("get", "list", "create", "update"),
    "Lease": ("get", "create", "update", "delete"),
    "ConfigMap": ("get", "list", "create", "update", "delete"),
    "PodDisruptionBudget": ("get", "create"),
    "ResourceClaimTemplate": ("get", "create"),
    "Pod": ("list",),
    "Event": ("list",),
}
"""What `penstock run` needs beside, to serve and to drive a rollout."""

Right = tuple[Verb, Kind]


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
    runtimes: Mapping[str, bool | None] = field(default_factory=dict)
    """Of those that Penstock deploys: whether they are there; None where that may not be read."""

    missing: tuple[Right, ...] = ()
    """What the account would need to be allowed, of what was asked."""

    gpus: int | None = None
    """Devices that all nodes can give; None where nodes cannot be listed."""

    offers: tuple[Offer, ...] | None = None
    """What devices these are; None likewise."""

    canaries: tuple[tuple[Object, Object], ...] = ()
    """InferenceServices with a candidate that serves, each with KServe's HTTPRoute of it."""


def mechanism(found: Found, where: KServe) -> str:
    """Return how traffic is split; `auto` prefers `route`, which every KServe can do."""
    if where.mode != "auto":
        return where.mode
    only = found.kinds.get("LLMInferenceService") and not found.kinds.get("InferenceService")
    return "llmisvc" if only else "route"


def rights_for(chosen: str) -> list[Right]:
    """Return what an account must be allowed, by how traffic is split."""
    other: Kind = "InferenceService" if chosen == "llmisvc" else "LLMInferenceService"
    unused = {other, "ServingRuntime"} if chosen == "llmisvc" else {other}
    needed = {kind: verbs for kind, verbs in (SERVING | RIGHTS).items() if kind not in unused}
    if chosen == "istio":
        needed["VirtualService"] = needed.pop("HTTPRoute")
    return [(verb, kind) for kind, verbs in needed.items() for verb in verbs]


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
        offers=found.offers or (),
        drain_s=where.drain_s,
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
    yield _rights(found, where)
    if chosen == "standard":
        yield _standard(found)
        yield from (standard.split(*pair) for pair in found.canaries)
    yield from _istio(found, where) if chosen == "istio" else _gateway(found, where)
    if model is not None and model.hardware.nodes > 1:
        yield _groups(found, chosen)
    if model is not None:
        yield _runtime(found, where, chosen, model)
        yield _devices(found, model)
        yield _metrics(model)


def gateway_of(where: KServe, ingress: Mapping[str, Any]) -> tuple[str, str]:
    """Return namespace and name of the Gateway: the spec's, KServe's, or KServe's default."""
    own = ("kserveIngressGateway", f"{Gateway().namespace}/{Gateway().name}")
    key, default = ISTIO_GATEWAY if where.mode == "istio" else own
    text = where.gateway or ingress.get(key) or default
    namespace, _, name = text.partition("/")
    return namespace, name


def address_of(found: Found, where: KServe) -> str:
    """Return the gateway's URL; empty while it has none."""
    if where.address:
        return where.address
    addresses = (found.gateway or {}).get("status", {}).get("addresses", [])
    return f"http://{bracketed(addresses[0]['value'])}" if addresses else ""


def bracketed(address: str) -> str:
    """Return an address as it stands in a URL: one of IPv6 in brackets."""
    return f"[{address}]" if ":" in address else address


def _kinds(found: Found, chosen: str) -> Iterator[Check]:
    for kind in _ROUTES[chosen]:
        versions = found.kinds.get(kind, ())
        product = _PRODUCTS.get(kind, "KServe")
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


def _istio(found: Found, where: KServe) -> Iterator[Check]:
    """Istio's Gateways have no status: that one routes is seen when it answers."""
    yield Check("gateway", True, "/".join(gateway_of(where, found.ingress)))
    yield Check(
        "gateway address",
        bool(where.address),
        where.address or "an Istio Gateway does not say where it is",
        "set target.kserve.address to the URL of istio-ingressgateway as seen from here",
    )


def _gateway(found: Found, where: KServe) -> Iterator[Check]:
    if not found.kinds.get("HTTPRoute"):
        return  # said already
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
        f"is its controller running? kubectl -n {namespace} describe gateway {name}",
    )
    address = address_of(found, where)
    yield Check(
        "gateway address",
        bool(address),
        address or "it has none",
        "set target.kserve.address to the URL by which it is reached from here",
    )


def _runtime(found: Found, where: KServe, chosen: str, model: ModelSpec) -> Check:
    needed = runtimes.engine(model).runtime
    if chosen == "llmisvc":
        return Check("runtime", True, f"{needed}, in the LLMInferenceService itself")
    there = found.runtimes.get(needed, False)
    if there is None:
        return Check(
            "runtime", True, f"{needed}, if it is there: ClusterServingRuntimes may not be read"
        )
    return Check(
        "runtime",
        there,
        needed
        if there
        else f"no ServingRuntime {needed} in namespace {where.namespace}, and no "
        "ClusterServingRuntime",
        f"kubectl -n {where.namespace} apply -k deploy/runtimes",
    )


def _groups(found: Found, chosen: str) -> Check:
    """Whether one replica may be several pods."""
    if chosen != "llmisvc":
        told = f"hardware.nodes above 1, and in mode {chosen} a replica is one pod"
        return Check("nodes per replica", False, told, "set target.kserve.mode: llmisvc")
    there = found.kinds.get("LeaderWorkerSet", ())
    return Check(
        "nodes per replica",
        bool(there),
        f"LeaderWorkerSet {', '.join(there)}" if there else "the cluster has no LeaderWorkerSet",
        "install LeaderWorkerSet (its chart or manifests), and start KServe's llmisvc controller "
        "again: it looks for it once",
    )


def _devices(found: Found, model: ModelSpec) -> Check:
    """What can never fit; what is free now is asked when a candidate comes (serving.gpus.surge)."""
    wanted, asked = runtimes.devices(model), model.hardware
    if not wanted:
        return Check("gpus", True, "none wanted")
    if asked.claim == "dra":
        there = bool(found.kinds.get("ResourceClaimTemplate"))
        told = "by ResourceClaims" if there else "the cluster does not serve ResourceClaims"
        return Check("gpus", there, told, "leave out hardware.claim, or use Kubernetes 1.34")
    if found.offers is None or model.rollout.surge == "unchecked":
        seen = "nodes cannot be listed" if found.offers is None else "rollout.surge is unchecked"
        return Check("gpus", True, f"not looked at: {seen}")
    part = f" {asked.mig}" if asked.mig else "" if asked.sharing == "none" else f" {asked.sharing}"
    most = max((each.count for each in suitable(found.offers, asked)), default=0)
    if not most:
        kinds = ", ".join(f"{o.count} x {o.product or o.resource}" for o in found.offers)
        return Check(
            "gpus",
            False,
            f"no node offers {asked.accelerator}{part}; at most on one node: {kinds or 'none'}",
            "set hardware to what is there, or add nodes, and the device plugin that announces "
            "them (docs/gpus.md)",
        )
    spread = next(n for n in range(1, asked.count + 1) if asked.count / n in range(1, most + 1))
    return Check(
        "gpus",
        most >= wanted,
        f"{wanted} x {asked.accelerator}{part} wanted in one node, the largest has {most}",
        f"set hardware.count: {most * asked.nodes}, or hardware.nodes: {spread}, in mode llmisvc",
    )


def _metrics(model: ModelSpec) -> Check:
    """Scores of users' answers are kept by the gateway of this machine, and by no engine."""
    metrics = model.rollout.metrics.items()
    never = [name for name, m in metrics if m.kind == "score" and "live" in m.prove_in]
    names = ", ".join(never)
    return Check(
        "metrics",
        not never,
        f"rollout.metrics: nothing can prove {names} live: a cluster keeps no scores of answers"
        if never
        else ", ".join(name for name, _ in metrics),
        f"set prove_in: [shadow] for {names}",
    )


def _rights(found: Found, where: KServe) -> Check:
    missing = [f"{verb} {kind}" for verb, kind in found.missing]
    namespace = where.namespace
    return Check(
        "rights",
        not missing,
        f"missing in namespace {namespace}: {', '.join(missing)}" if missing else "all",
        f"kubectl -n {namespace} apply -k deploy/runner, and bind its Role to this account: "
        f"kubectl -n {namespace} create rolebinding NAME --role=penstock-runner --user=…, or "
        f"--serviceaccount={namespace}:NAME",
    )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2])


def _why(condition: Mapping[str, Any]) -> str:
    return str(condition.get("message") or condition.get("reason") or "nothing said yet")
