"""A namespace in which others serve a model: what KServe made of their InferenceService."""

from __future__ import annotations

from typing import Any

from serving.adoption import act
from serving.adoption.adopt import adopt
from serving.adoption.leave import leave
from serving.adoption.writes import Write
from serving.cluster import Kind, Object
from serving.kserve.http_route import carrying, users_rules
from serving.kserve.traffic import RouteTraffic
from tests.fakes.cluster import MemoryCluster
from tests.unit.serving.kserve.objects import FACTS

TRAFFIC = RouteTraffic(FACTS)
HOST = "old-models.example.com"


class Namespace(MemoryCluster):
    """Objects whose gateway accepts every route at once; says what was written, in order."""

    def __init__(self, *, accepts: bool = True) -> None:
        super().__init__()
        self.accepts = accepts
        self.happened: list[str] = []
        self.led: list[dict[str, set[str]]] = []
        """After every write: host to the Services that users may meet there."""

    def create(self, obj: Object, *, dry_run: bool = False) -> Object:
        made = super().create(obj, dry_run=dry_run)
        return self._written("create", made)

    def replace(self, obj: Object, *, dry_run: bool = False) -> Object:
        made = super().replace(obj, dry_run=dry_run)
        return self._written("replace", made)

    def delete(
        self, kind: Kind, name: str, *, read: Object | None = None, foreground: bool = False
    ) -> None:
        super().delete(kind, name, read=read, foreground=foreground)
        self.happened.append(f"delete {kind} {name}")
        self.led.append(self.meets())

    def adopt(self, service: str = "old", name: str = "") -> list[str]:
        """Adopt an InferenceService; return what was written."""
        return self._acted(lambda: self.adoption(service, name))

    def adoption(self, service: str = "old", name: str = "") -> list[Write]:
        """Return the plan of an adoption."""
        chosen, around = act.around_isvc(self, service, name)
        return adopt(around, chosen, FACTS)

    def leave(self, name: str = "m") -> list[str]:
        """Leave a name; return what was written."""
        return self._acted(lambda: leave(act.around_name(self, name), name))

    def meets(self) -> dict[str, set[str]]:
        """Return whom users meet by which host."""
        met: dict[str, set[str]] = {}
        for route in self.list("HTTPRoute"):
            refs = [ref for rule in users_rules(route) for ref in rule["backendRefs"]]
            for host in route["spec"]["hostnames"]:
                met.setdefault(host, set()).update(r["name"] for r in refs if r.get("weight", 1))
        return {host: services for host, services in met.items() if services}

    def weights(self, name: str = "m") -> dict[str, int]:
        route = self.get("HTTPRoute", name)
        assert route is not None
        return TRAFFIC.weights_of(route)

    def _acted(self, plan: Any) -> list[str]:
        self.happened.clear()
        self.led.clear()
        act.act(self, plan, FACTS, lambda _line: None, settle_s=0.0)
        return self.happened

    def _written(self, verb: str, obj: Object) -> Object:
        self.happened.append(f"{verb} {obj['kind']} {obj['metadata']['name']}")
        self.led.append(self.meets())
        if obj["kind"] != "HTTPRoute" or not self.accepts:
            return obj
        (ref,) = obj["spec"]["parentRefs"]
        body = {"status": "True", "observedGeneration": obj["metadata"]["generation"]}
        conditions = [{"type": kind, **body} for kind in ("Accepted", "ResolvedRefs")]
        parent = {"parentRef": ref, "conditions": conditions}
        return self.replace_status({**obj, "status": {"parents": [parent]}})


def isvc(name: str = "old", **spec: Any) -> Object:
    """Return an InferenceService as a person writes it; its engine calls the model `m`."""
    model = {"modelFormat": {"name": "huggingface"}, "args": ["--model_name=m"]}
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": name, "namespace": "models", "labels": {"team": "a"}},
        "spec": {"predictor": {"model": model}, **spec},
    }


def theirs(obj: Object | None = None, *, accepts: bool = True) -> Namespace:
    """Return a namespace with an InferenceService that is ready, and KServe's HTTPRoute of it."""
    cluster, obj = Namespace(accepts=accepts), obj or isvc()
    made = cluster.create(obj)
    ready = {"type": "Ready", "status": "True"}
    cluster.replace_status({**made, "status": {"conditions": [ready]}})
    name = obj["metadata"]["name"]
    everything = {"path": {"type": "RegularExpression", "value": "^/.*$"}}
    backend = {"kind": "Service", "name": f"{name}-predictor", "namespace": "models", "port": 80}
    route = carrying(
        name,
        {"hostnames": [HOST], "rules": [{"matches": [everything], "backendRefs": [backend]}]},
        FACTS,
    )
    owner = [{"kind": "InferenceService", "name": name, "controller": True}]
    cluster.create({**route, "metadata": {"name": name, "ownerReferences": owner}})
    return cluster
