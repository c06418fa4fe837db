"""What a cluster serves: versions, weights wanted and observed, pods, rollouts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from serving import controller as acting
from serving.manifests import NAME, ready

if TYPE_CHECKING:
    from serving.cluster import Object
    from serving.targets.kserve import ClusterTarget


@dataclass(frozen=True, slots=True)
class Pod:
    """One pod of a version."""

    name: str
    ready: bool
    restarts: int
    node: str


@dataclass(frozen=True, slots=True)
class Served:
    """One version."""

    service: str
    ready: bool
    reason: str
    """Why it is not ready."""

    wanted: int | None
    """Share of traffic that the route asks for; None where it is not in the route."""

    observed: int | None
    """Share that the gateway has accepted; None while that is not known."""

    pods: tuple[Pod, ...]


@dataclass(frozen=True, slots=True)
class Name:
    """Everything about one model."""

    name: str
    url: str
    host: str
    versions: tuple[Served, ...]
    rollout: str
    """Where its rollout is, or how the last one ended; empty where there was none."""


def read(target: ClusterTarget) -> list[Name]:
    """Return every model of the namespace."""
    cluster, traffic = target.cluster, target.traffic
    every = cluster.list(traffic.served)
    versions = [o for o in every if _is_version(o)]
    carriers = [o for o in cluster.list(traffic.carrier) if _labels(o).get(NAME) == _name(o)]
    names = {_labels(o)[NAME] for o in versions} | {_name(o) for o in carriers}
    routes = {_name(o): o for o in carriers}
    found = []
    for name in sorted(names):
        led = traffic.weights_of(routes[name]) if name in routes else {}
        own = [o for o in versions if _labels(o)[NAME] == name]
        own += [o for o in every if _name(o) in led and o not in own]  # adopted: without labels
        found.append(_one(target, name, own, routes.get(name)))
    return found


def document(names: list[Name]) -> dict[str, Any]:
    """Return it for programs."""
    return {"models": [asdict(each) for each in names]}


def lines(names: list[Name]) -> Iterator[str]:
    """Yield it for people."""
    if not names:
        yield "nothing is served there; next: penstock run model.yaml"
    for each in names:
        yield f"{each.name}  {each.url}" + (f"  Host: {each.host}" if each.host else "")
        for served in each.versions:
            yield f"  {served.service:<24} {_share(served):<28} {_state(served)}"
            for pod in served.pods:
                state = "ready" if pod.ready else "not ready"
                yield f"    {pod.name}  {state}, {pod.restarts} restarts, on {pod.node or '-'}"
        if each.rollout:
            yield f"  rollout: {each.rollout}"


def _one(target: ClusterTarget, name: str, versions: list[Object], route: Object | None) -> Name:
    wanted = target.traffic.weights_of(route) if route is not None else {}
    observed = target.observed(name)
    door = target.door(name)
    served = []
    for obj in sorted(versions, key=_name):
        service = _name(obj)
        is_ready, reason = ready(obj)
        served.append(
            Served(
                service,
                is_ready,
                "" if is_ready else target.why(service) or reason,
                wanted.get(service),
                observed.get(service) if observed else None,
                tuple(_pod(pod) for pod in target.pods(service)),
            )
        )
    return Name(name, door.url, door.headers.get("Host", ""), tuple(served), _rollout(route))


def _rollout(route: Object | None) -> str:
    from penstock.cli.rollout_view import place

    record = acting.record_of(route) if route is not None else None
    if record is None:
        return ""
    return f"{place(record)}, {record.candidate} against {record.stable}: {record.reason}"


def _pod(obj: Object) -> Pod:
    status = obj.get("status", {})
    conditions = {each["type"]: each["status"] for each in status.get("conditions", [])}
    restarts = sum(each.get("restartCount", 0) for each in status.get("containerStatuses", []))
    node = obj["spec"].get("nodeName", "")
    return Pod(_name(obj), conditions.get("Ready") == "True", restarts, node)


def _share(served: Served) -> str:
    if served.wanted is None:
        return "not in the route"
    seen = "not known" if served.observed is None else f"{served.observed} %"
    return f"{served.wanted} % (observed: {seen})"


def _state(served: Served) -> str:
    return "ready" if served.ready else f"not ready: {served.reason}"


def _is_version(obj: Object) -> bool:
    """Return whether it is one of ours, and serves one version: other mechanisms have others."""
    number = _name(obj).removeprefix(f"{_labels(obj).get(NAME, '')}-v")
    return NAME in _labels(obj) and number.isdecimal()


def _labels(obj: Object) -> dict[str, str]:
    labels: dict[str, str] = obj["metadata"].get("labels", {})
    return labels


def _name(obj: Object) -> str:
    return str(obj["metadata"]["name"])
