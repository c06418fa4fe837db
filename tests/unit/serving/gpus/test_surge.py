"""Beside, borrow, swap or refuse: what is free decides, and the policy what else may be."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.spec import Rollout
from serving.gpus.ask import Ask
from serving.gpus.inventory import inventory_of, room
from serving.gpus.surge import Beside, Borrow, Candidate, Decision, Refuse, Stable, Swap, decide
from serving.rollout.loan import Loan
from tests.unit.serving.gpus.nodes import NVIDIA, node, pod


def _decided(
    sizes: list[int], held: list[tuple[str, int]], replicas: int, count: int = 1, **policy: Any
) -> Decision:
    """Return what is decided where the stable version has a pod per node and its devices."""
    nodes = [node(str(i), {NVIDIA: size}, {}) for i, size in enumerate(sizes)]
    inventory = inventory_of(nodes, [pod(at, devices) for at, devices in held])
    stable = Stable("m-v1", len(held), tuple(held)) if held else None
    candidate = Candidate("m-v2", replicas, Ask(NVIDIA, count))
    return decide(inventory, stable, candidate, Rollout(**policy))


def test_what_is_free_is_taken_whatever_the_policy() -> None:
    for surge in ("beside", "borrow", "swap"):
        found = _decided([4], [("0", 1), ("0", 1)], 2, surge=surge)
        assert isinstance(found, Beside)
        assert found.told == "2 x nvidia.com/gpu are free"


def test_by_default_what_does_not_fit_is_refused_with_what_would() -> None:
    found = _decided([2], [("0", 1), ("0", 1)], 1)
    assert isinstance(found, Refuse)
    assert found.reason == (
        "m-v2 needs 1 x nvidia.com/gpu, in pods of 1, and no such pods would find nvidia.com/gpu "
        "beside what runs (0 has 0 free)"
    )
    assert found.change.split("\n  or ") == [
        "rollout.surge: borrow (m-v1 lends 1 of 2 replicas, m-v2 starts with 1)",
        "rollout.surge: swap (m-v1 is stopped to make room for m-v2: nobody is served for up to "
        "180 s, without evidence; if it does not start, until m-v1 has again)",
        "nodes with 1 x nvidia.com/gpu more",
        "rollout.surge: unchecked, if nodes come by themselves",
    ]


@pytest.mark.parametrize(
    ("sizes", "fits"), [([4, 4], True), ([8], True), ([4, 3, 3], False), ([2, 2, 2], False)]
)
def test_a_group_of_pods_needs_room_for_all_of_them(sizes: list[int], fits: bool) -> None:
    nodes = [node(str(i), {NVIDIA: size}, {}) for i, size in enumerate(sizes)]
    candidate = Candidate("m-v2", 1, Ask(NVIDIA, 4, nodes=2))
    found = decide(inventory_of(nodes, []), None, candidate, Rollout(surge="borrow"))
    if fits:
        assert found == Beside("8 x nvidia.com/gpu are free")
        return
    assert isinstance(found, Refuse)
    assert "needs 8 x nvidia.com/gpu, in replicas of 2 pods of 4" in found.reason
    assert "no such replicas" in found.reason


def test_fewer_replicas_are_offered_where_some_would_fit() -> None:
    found = _decided([3], [("0", 2)], 2)
    assert isinstance(found, Refuse)
    assert "replicas: 1" in found.change.split("\n  or ")


@pytest.mark.parametrize(
    ("held", "replicas", "policy", "loan"),
    [
        (2, 1, {}, Loan("m-v1", 2, 1, "m-v2", 1, 1)),
        (2, 2, {}, Loan("m-v1", 2, 1, "m-v2", 2, 1)),
        (4, 4, {"keep": 2}, Loan("m-v1", 4, 2, "m-v2", 4, 2)),
        (4, 2, {"keep": 1}, Loan("m-v1", 4, 2, "m-v2", 2, 2)),
    ],
)
def test_no_more_is_borrowed_than_is_needed_and_allowed(
    held: int, replicas: int, policy: dict[str, int], loan: Loan
) -> None:
    found = _decided([held], [("0", 1)] * held, replicas, surge="borrow", **policy)
    assert isinstance(found, Borrow)
    assert found.loan == loan


def test_nothing_is_taken_that_would_not_help() -> None:
    found = _decided([2, 2], [("0", 1), ("0", 1)], 2, 2, surge="borrow")
    assert isinstance(found, Borrow)
    assert (found.loan.keeps, found.loan.starts, found.loan.ends) == (2, 1, 2)
    assert found.told == "m-v2 starts with 1 of 2, the rest when it is promoted"


def test_a_candidate_that_could_never_be_whole_does_not_start() -> None:
    found = _decided([2, 1], [("0", 1), ("0", 1)], 2, 2, surge="borrow", keep=1)
    assert isinstance(found, Refuse)


@pytest.mark.parametrize(
    ("held", "count", "policy"),
    [
        ([("0", 1)], 1, {}),
        ([("0", 1), ("0", 1)], 2, {}),
        ([("0", 1), ("0", 1)], 1, {"keep": 2}),
        ([("0", 1), ("0", 1)], 1, {"keep": 5}),
    ],
    ids=["the last one", "too small", "kept", "more kept than there are"],
)
def test_what_cannot_be_lent_is_refused(
    held: list[tuple[str, int]], count: int, policy: dict[str, int]
) -> None:
    found = _decided([len(held)], held, 1, count, surge="borrow", **policy)
    assert isinstance(found, Refuse)
    assert "borrow" not in found.change


def test_a_swap_is_announced_with_its_gap() -> None:
    found = _decided([1], [("0", 1)], 1, surge="swap", ready_timeout_s=300.0)
    assert isinstance(found, Swap)
    assert (found.gap_s, found.loan.keeps, found.loan.alone) == (300.0, 0, True)
    assert "nobody is served for up to 300 s" in found.told


def test_a_swap_that_would_not_help_is_refused() -> None:
    found = _decided([1, 1], [("0", 1), ("1", 1)], 1, 2, surge="swap")
    assert isinstance(found, Refuse)
    assert "swap" not in found.change


def test_a_first_version_has_nobody_to_take_from() -> None:
    for surge in ("beside", "borrow", "swap"):
        found = _decided([1], [], 2, surge=surge)
        assert isinstance(found, Refuse)
        assert found.change.startswith("replicas: 1")


@given(
    st.lists(st.integers(1, 4), min_size=1, max_size=3),
    st.lists(st.tuples(st.integers(0, 2), st.integers(1, 2)), min_size=1, max_size=4),
    st.integers(1, 3),
    st.integers(1, 2),
    st.integers(1, 4),
    st.data(),
)
def test_what_a_loan_promises_fits_whichever_pods_go(
    sizes: list[int],
    places: list[tuple[int, int]],
    replicas: int,
    count: int,
    keep: int,
    data: st.DataObject,
) -> None:
    held = [(str(at % len(sizes)), devices) for at, devices in places]
    for at in range(len(sizes)):  # what runs has found room
        sizes[at] = max(sizes[at], sum(d for n, d in held if n == str(at)))
    found = _decided(sizes, held, replicas, count, surge="borrow", keep=keep)
    if not isinstance(found, Borrow):
        return
    loan = found.loan
    assert min(keep, len(held)) <= loan.keeps <= len(held) == loan.owns
    assert 1 <= loan.starts <= loan.ends == replicas
    gone = data.draw(st.permutations(held))[: loan.owns - loan.keeps]
    nodes = [node(str(i), {NVIDIA: size}, {}) for i, size in enumerate(sizes)]
    assert room(inventory_of(nodes, []), Ask(NVIDIA, count)) >= loan.ends
    left = list(held)
    for each in gone:
        left.remove(each)
    after = inventory_of(nodes, [pod(at, devices) for at, devices in left])
    assert room(after, Ask(NVIDIA, count)) >= loan.starts
