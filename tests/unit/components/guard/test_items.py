from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.guard.comparison import Pairs
from components.guard.items import Judged, bucket, pair_up, tally


def record(identity: str, correct: bool, *, expected: str = "x") -> dict[str, object]:
    return {
        "id": identity,
        "skill": "add",
        "expected": expected,
        "correct": correct,
        "tokens": 3,
    }


def test_pairs_are_the_items_both_answered_in_the_parents_order() -> None:
    parent = [record("b", True), record("a", False), record("c", True), record("d", True)]
    new = [record("a", True), record("b", False), record("c", True, expected="y")]
    assert pair_up(parent, new) == [
        Judged("b", "add", 3, True, False),
        Judged("a", "add", 3, False, True),
    ]


@pytest.mark.parametrize(
    ("tokens", "name"),
    [
        (0, "up to 2 tokens"),
        (2, "up to 2 tokens"),
        (3, "3 to 4 tokens"),
        (4, "3 to 4 tokens"),
        (5, "5 to 8 tokens"),
        (4096, "2049 to 4096 tokens"),
        (4097, "4097 to 8192 tokens"),
    ],
)
def test_length_buckets(tokens: int, name: str) -> None:
    assert bucket(tokens) == name


judged = st.builds(
    Judged,
    st.uuids().map(str),
    st.sampled_from("abc"),
    st.integers(0, 99),
    st.booleans(),
    st.booleans(),
)


@given(st.lists(judged, max_size=60), st.integers(0, 60))
def test_a_tally_may_be_made_in_parts_and_its_slices_add_up(items: list[Judged], cut: int) -> None:
    whole = tally(items)
    assert tally(items[cut:], tally(items[:cut])) == whole
    for kind in ("skill", "length"):
        parts = [pairs for name, pairs in whole.slices.items() if name[0] == kind]
        added = Pairs(*(sum(getattr(p, f) for p in parts) for f in ("n", "gained", "lost")))
        assert added == whole.total
