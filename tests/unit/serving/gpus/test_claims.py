"""Dynamic resource allocation: the template is what Kubernetes takes, and counts what it allows."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest

from serving.cluster import Object
from serving.gpus import claims
from serving.gpus.devices import Devices, with_claims
from serving.gpus.inventory import inventory_of, room
from tests.cluster.build import KUBERNETES
from tests.unit.serving.gpus.nodes import A100, H100, hardware, pod
from tests.unit.serving.kserve.definitions import of_module
from tests.unit.serving.kserve.objects import beside

_SPECS = f"{KUBERNETES}/api/openapi-spec/v3/apis__"
_TYPES = {
    "ResourceClaimTemplate": (
        "resource.k8s.io__v1",
        "io.k8s.api.resource.v1.ResourceClaimTemplate",
    ),
    "PodDisruptionBudget": ("policy__v1", "io.k8s.api.policy.v1.PodDisruptionBudget"),
}
WISH = hardware("nvidia-h100-80gb", count=2, claim="dra")
MIG = hardware("nvidia-a100-40gb", mig="1g.5gb", claim="dra")


def _mistakes(obj: Object) -> list[str]:
    file, name = _TYPES[obj["kind"]]
    text = of_module(f"{_SPECS}{file}_openapi.json").read_text()
    document = _closed(json.loads(text))
    schema = {"$ref": f"#/components/schemas/{name}", "components": document["components"]}
    return [str(each.message) for each in jsonschema.Draft7Validator(schema).iter_errors(obj)]


def _closed(schema: Any) -> Any:
    """Return schemas that refuse unknown fields."""
    if isinstance(schema, list):
        return [_closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: _closed(value) for key, value in schema.items() if key != "format"}
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object":
        found["additionalProperties"] = False
    return found


@pytest.mark.parametrize("name", beside())
def test_kubernetes_own_schema_takes_what_lies_beside_a_version(name: str) -> None:
    assert _mistakes(beside()[name]) == []
    wrong = {**beside()[name], "specs": {}}
    assert _mistakes(wrong) != []


def test_a_template_is_named_by_its_content() -> None:
    name = claims.template(WISH)["metadata"]["name"]
    assert claims.template(WISH)["metadata"]["name"] == name
    other = hardware("nvidia-h100-80gb", count=4, claim="dra")
    assert claims.template(other)["metadata"]["name"] != name
    assert claims.of_pod(WISH)["resourceClaims"][0]["resourceClaimTemplateName"] == name


def _device(name: str, product: str, memory: str, profile: str = "") -> Object:
    kind = "mig" if profile else "gpu"
    attributes = {"productName": {"string": product}, "type": {"string": kind}}
    if profile:
        attributes["profile"] = {"string": profile}
    return {"name": name, "attributes": attributes, "capacity": {"memory": {"value": memory}}}


def _slice(node: str, *devices: Object, driver: str = claims.DRIVER) -> Object:
    spec = {"driver": driver, "nodeName": node, "pool": {"name": node}, "devices": list(devices)}
    return {"metadata": {"name": f"{node}-0"}, "spec": spec}


def _claim(*devices: tuple[str, str]) -> Object:
    results = [{"driver": claims.DRIVER, "pool": pool, "device": name} for pool, name in devices]
    return {"status": {"allocation": {"devices": {"results": results}}}}


SLICES = [
    _slice("h", *(_device(f"gpu-{i}", "NVIDIA H100 80GB HBM3", "81559Mi") for i in range(4))),
    _slice("a", _device("gpu-0", "NVIDIA A100-SXM4-40GB", "40Gi")),
    _slice("a", _device("gpu-1-mig-19-0-1", "NVIDIA A100-SXM4-40GB", "4864Mi", "1g.5gb")),
    _slice("h", _device("gpu-9", "NVIDIA H100 80GB HBM3", "81559Mi"), driver="other.example"),
]


def test_what_is_allocated_is_not_free() -> None:
    assert claims.free(SLICES, [], WISH) == {"h": 4}
    taken = [_claim(("h", "gpu-0"), ("h", "gpu-3")), _claim(("a", "gpu-0")), {"status": {}}]
    assert claims.free(SLICES, taken, WISH) == {"h": 2}
    assert claims.free(SLICES, taken, MIG) == {"a": 1}
    assert claims.free(SLICES, [], hardware("nvidia-a100-40gb", claim="dra")) == {"a": 1}


def test_pods_by_claim_are_counted_as_pods_by_resource_are() -> None:
    free = claims.free(SLICES, [_claim(("h", "gpu-0"), ("h", "gpu-1"))], WISH)
    seen = Devices(with_claims(inventory_of([H100, A100], []), free), WISH)
    wanted = seen.wanted(())
    assert room(seen.inventory, wanted) == 1
    runs = pod("h", 0)
    runs["spec"] |= claims.of_pod(WISH)
    assert seen.held([runs, pod("h", 2)], wanted) == (("h", 2), ("h", 0))
