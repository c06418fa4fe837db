"""What is free: nothing is counted twice, and no pod is split over nodes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.gpus.ask import Ask
from serving.gpus.inventory import given_back, inventory_of, room
from tests.unit.serving.gpus.nodes import A100, H100, L4, MI300X, NVIDIA, TAINT, node, pod

ONE, FOUR = Ask(NVIDIA, 1, {}, NVIDIA), Ask(NVIDIA, 4, {}, NVIDIA)
SIZES = st.lists(st.integers(0, 8), min_size=1, max_size=5)
HELD = st.lists(st.tuples(st.integers(0, 4), st.integers(1, 8)), max_size=8)


@given(SIZES, HELD, st.integers(1, 8))
def test_as_many_pods_fit_as_can_be_placed_one_by_one(
    sizes: list[int], held: list[tuple[int, int]], count: int
) -> None:
    nodes = [node(str(i), {NVIDIA: size}, {}) for i, size in enumerate(sizes)]
    wanted = Ask(NVIDIA, count)
    pods = [pod(str(i), devices) for i, devices in held]
    free = [size - sum(d for i, d in held if i == at) for at, size in enumerate(sizes)]
    placed = 0
    while (at := next((i for i, left in enumerate(free) if left >= count), None)) is not None:
        free[at] -= count
        placed += 1
        pods.append(pod(str(at), count))
        assert room(inventory_of(nodes, pods[: len(held)]), wanted) >= placed
    inventory = inventory_of(nodes, pods[: len(held)])
    assert room(inventory, wanted) == placed
    assert room(inventory_of(nodes, pods), wanted) == 0


@given(SIZES, HELD, st.integers(1, 8))
def test_what_is_given_back_is_what_would_be_free_without_it(
    sizes: list[int], held: list[tuple[int, int]], count: int
) -> None:
    nodes = [node(str(i), {NVIDIA: size}, {}) for i, size in enumerate(sizes)]
    full = inventory_of(nodes, [pod(str(i), devices) for i, devices in held])
    back = given_back(full, NVIDIA, [(str(i), devices) for i, devices in held])
    assert room(back, Ask(NVIDIA, count)) == sum(size // count for size in sizes)


@pytest.mark.parametrize(
    "other",
    [
        {"status": {"phase": "Succeeded"}},
        {"status": {"phase": "Failed"}},
        {"metadata": {"name": "p", "deletionTimestamp": "2026-11-28T00:00:00Z"}},
        {"spec": {"containers": pod("h", 8)["spec"]["containers"]}},
    ],
    ids=["succeeded", "failed", "being removed", "no node yet"],
)
def test_a_pod_that_holds_nothing_takes_nothing(other: dict[str, Any]) -> None:
    assert room(inventory_of([H100], [pod("h", 8)]), ONE) == 0
    assert room(inventory_of([H100], [{**pod("h", 8), **other}]), ONE) == 8


def test_the_greediest_of_init_containers_and_all_others_count() -> None:
    body = pod("h", 2)
    (each,) = body["spec"]["containers"]
    body["spec"]["containers"] = [each, each, {}]
    body["spec"]["initContainers"] = [pod("h", 5)["spec"]["containers"][0]]
    assert room(inventory_of([H100], [body]), ONE) == 3


def test_a_pod_of_four_does_not_fit_on_two_and_two() -> None:
    nodes = [node("a", {NVIDIA: 2}, {}), node("b", {NVIDIA: 2}, {})]
    assert room(inventory_of(nodes, []), ONE) == 4
    assert room(inventory_of(nodes, []), FOUR) == 0


def test_closed_and_tainted_nodes_have_no_room_for_who_does_not_tolerate() -> None:
    closed = node("c", {NVIDIA: 8}, {}, unschedulable=True)
    broken = node("n", {NVIDIA: 8}, {})
    broken["status"]["conditions"] = [{"type": "Ready", "status": "Unknown"}]
    team = node("t", {NVIDIA: 8}, {}, taints=[{"key": "team", "effect": "NoExecute"}, TAINT])
    soft = node("s", {NVIDIA: 1}, {}, taints=[{"key": "x", "effect": "PreferNoSchedule"}])
    assert room(inventory_of([closed, broken, team, soft], []), ONE) == 1
    assert room(inventory_of([H100], []), ONE) == 8
    assert room(inventory_of([H100], []), Ask(NVIDIA, 1)) == 0


def test_labels_keep_a_pod_from_other_devices() -> None:
    wanted = Ask(NVIDIA, 1, {f"{NVIDIA}.product": ("NVIDIA-L4",)}, NVIDIA)
    inventory = inventory_of([H100, A100, L4, MI300X], [pod("l", 3)])
    assert room(inventory, wanted) == 1


def test_pods_without_devices_are_not_counted_here() -> None:
    with pytest.raises(ValueError, match="without devices"):
        room(inventory_of([H100], []), Ask())
