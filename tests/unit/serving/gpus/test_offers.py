"""Nodes offer what their labels and plugins say, and a spec's name finds it."""

from __future__ import annotations

from typing import Any

import pytest

from penstock.core.hardware import ACCELERATORS
from serving.cluster import Object
from serving.gpus.ask import ask
from serving.gpus.offers import is_product, offers_of, suitable
from tests.unit.serving.gpus.nodes import (
    A100,
    AMD,
    BARE,
    EVERY,
    H100,
    L4,
    L40S,
    MI300X,
    MIXED,
    MPS,
    NVIDIA,
    SINGLE,
    SLICED,
    hardware,
    node,
)

OFFERS = offers_of(EVERY)


@pytest.mark.parametrize(
    ("name", "more", "there"),
    [
        ("nvidia-h100-80gb", {}, [H100, MIXED]),
        ("nvidia-a100-40gb", {}, [A100]),
        ("nvidia-a100-80gb", {}, []),
        ("nvidia-l4", {}, [L4]),
        ("nvidia-l40s", {}, [L40S]),
        ("nvidia-a100-80gb", {"mig": "1g.10gb"}, [SINGLE]),
        ("nvidia-h100-80gb", {"mig": "1g.10gb"}, [MIXED]),
        ("nvidia-h100-80gb", {"mig": "7g.80gb"}, []),
        ("nvidia-l4", {"sharing": "time-slicing"}, [SLICED]),
        ("nvidia-l4", {"sharing": "mps"}, [MPS]),
        ("nvidia-l40s", {"sharing": "mps"}, []),
        ("amd-mi300x-192gb", {}, [MI300X]),
        ("amd-mi325x-256gb", {}, []),
    ],
)
def test_a_specs_hardware_is_found_on_the_nodes_that_have_it(
    name: str, more: dict[str, Any], there: list[Object]
) -> None:
    wished = hardware(name, **more)
    found = suitable(OFFERS, wished)
    products = {offer.product for offer in found}
    assert {
        each.product for one in there for each in suitable(offers_of([one]), wished)
    } == products
    assert bool(found) == bool(there)
    wanted = ask(wished, OFFERS)
    for each in EVERY:
        labels = each["metadata"]["labels"]
        allowed = all(labels.get(key) in values for key, values in wanted.labels.items())
        has = int(each["status"]["allocatable"].get(wanted.resource, "0")) > 0
        assert not there or (allowed and has) == (each in there), each["metadata"]["name"]


@pytest.mark.parametrize(
    ("name", "more", "resource"),
    [
        ("nvidia-l4", {}, NVIDIA),
        ("nvidia-h100-80gb", {"mig": "1g.10gb"}, "nvidia.com/mig-1g.10gb"),
        ("nvidia-l4", {"sharing": "mps"}, f"{NVIDIA}.shared"),
        ("amd-mi300x-192gb", {"count": 4}, AMD),
    ],
)
def test_where_nobody_labels_nodes_only_the_resource_is_asked_for(
    name: str, more: dict[str, Any], resource: str
) -> None:
    wanted = ask(hardware(name, **more))
    assert (wanted.resource, wanted.count) == (resource, more.get("count", 1))
    assert "affinity" not in wanted.to_object()
    if resource == NVIDIA:
        assert ask(hardware(name), offers_of([BARE])) == wanted


def test_a_pod_tolerates_the_taint_that_keeps_others_off() -> None:
    (tolerated,) = ask(hardware("nvidia-l4")).to_object()["tolerations"]
    assert tolerated == {"key": NVIDIA, "operator": "Exists", "effect": "NoSchedule"}
    assert ask(hardware("cpu"), OFFERS).to_object() == {}


def test_an_affinity_names_every_product_that_will_do() -> None:
    pcie = node("q", {NVIDIA: 8}, {f"{NVIDIA}.product": "NVIDIA-H100-PCIe"})
    wanted = ask(hardware("nvidia-h100-80gb"), offers_of([H100, pcie, L4]))
    (term,) = wanted.to_object()["affinity"]["nodeAffinity"][
        "requiredDuringSchedulingIgnoredDuringExecution"
    ]["nodeSelectorTerms"]
    assert term["matchExpressions"] == [
        {
            "key": f"{NVIDIA}.product",
            "operator": "In",
            "values": ["NVIDIA-H100-80GB-HBM3", "NVIDIA-H100-PCIe"],
        }
    ]


@pytest.mark.parametrize("product", ["NVIDIA-H100-PCIe", "NVIDIA-H100-NVL"])
def test_devices_that_exchange_are_in_one_nvlink_domain_where_there_is_one(product: str) -> None:
    apart = node("q", {NVIDIA: 8}, {f"{NVIDIA}.product": product})
    four = hardware("nvidia-h100-80gb", count=4)
    label = f"{NVIDIA}.product"
    assert ask(four, offers_of([apart, H100])).labels == {label: ("NVIDIA-H100-80GB-HBM3",)}
    assert ask(four, offers_of([apart])).labels == {label: (product,)}


@pytest.mark.parametrize(
    ("labels", "sharing"),
    [
        ({f"{NVIDIA}.replicas": "4", f"{NVIDIA}.sharing-strategy": "mps"}, "mps"),
        ({f"{NVIDIA}.replicas": "4"}, "time-slicing"),
        ({f"{NVIDIA}.product": "NVIDIA-L4-SHARED"}, "time-slicing"),
        ({f"{NVIDIA}.replicas": "1", f"{NVIDIA}.sharing-strategy": "mps"}, "none"),
        ({f"{NVIDIA}.replicas": "0"}, "none"),
        ({}, "none"),
    ],
)
def test_a_device_is_shared_if_any_of_its_labels_says_so(
    labels: dict[str, str], sharing: str
) -> None:
    (found,) = offers_of([node("n", {NVIDIA: 4}, labels)])
    assert found.sharing == sharing


def test_what_is_no_device_and_what_has_gone_is_not_offered() -> None:
    other = node("o", {"nvidia.com/hostdev": 1, NVIDIA: 0}, {})
    closed = node("c", {NVIDIA: 8}, {}, unschedulable=True)
    assert offers_of([other, closed]) == ()
    assert [offer.count for offer in offers_of([BARE, node("b2", {NVIDIA: 6}, {})])] == [6]


def test_every_accelerator_is_told_from_every_other_by_name_or_memory() -> None:
    names = [name for name in ACCELERATORS if name != "cpu"]
    for name in names:
        product = name.upper().replace("-", " ")
        same = [other for other in names if is_product(product, other)]
        assert {ACCELERATORS[other].family for other in same} == {ACCELERATORS[name].family}
        assert len({ACCELERATORS[other].memory_gib for other in same}) == len(same)
