from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.guard.comparison import Pairs, compare, interval, mcnemar, paired

counts = st.integers(0, 40)


def _records(right: list[bool]) -> list[dict[str, object]]:
    return [{"id": str(i), "expected": "x", "correct": r} for i, r in enumerate(right)]


def test_pairs_are_the_items_both_answered() -> None:
    old = _records([True, True, False, False])
    new = [*_records([True, False, True]), {"id": "9", "expected": "x", "correct": True}]
    assert paired(old, new) == Pairs(n=3, gained=1, lost=1)


def test_mcnemar_against_the_binomial_by_hand() -> None:
    assert mcnemar(Pairs(10, 0, 0)) == 1.0
    assert mcnemar(Pairs(10, 5, 0)) == 2 / 2**5
    assert mcnemar(Pairs(100, 8, 2)) == pytest.approx(2 * (1 + 10 + 45) / 2**10)
    assert mcnemar(Pairs(9000, 2500, 2500)) == 1.0


@given(n=st.integers(1, 5000))
def test_without_discordant_items_the_bound_is_known(n: int) -> None:
    z = 1.6448536269514722
    low, high = interval(Pairs(n, 0, 0))
    assert low == pytest.approx(-z * z / (n + z * z), abs=1e-9)
    assert high == pytest.approx(-low, abs=1e-9)


@given(extra=counts, gained=counts, lost=counts)
def test_the_interval_holds_the_difference_and_mirrors(extra: int, gained: int, lost: int) -> None:
    pairs = Pairs(extra + gained + lost + 1, gained, lost)
    low, high = interval(pairs)
    assert -1 <= low <= pairs.difference <= high <= 1
    mirrored = interval(Pairs(pairs.n, lost, gained))
    assert mirrored == pytest.approx((-high, -low), abs=1e-6)


@pytest.mark.parametrize(
    ("pairs", "outcome"),
    [
        (Pairs(2100, 0, 0), "pass"),
        (Pairs(2100, 60, 40), "pass"),
        (Pairs(50, 0, 0), "insufficient_items"),
        (Pairs(2100, 10, 100), "fail"),
        (Pairs(0, 0, 0), "insufficient_items"),
    ],
)
def test_the_three_answers(pairs: Pairs, outcome: str) -> None:
    found = compare(pairs, 0.015)
    assert found.outcome == outcome
    assert math.isclose(found.smallest_margin, max(0.0, -found.low))


def test_the_smallest_margin_is_where_it_starts_to_pass() -> None:
    found = compare(Pairs(300, 3, 9), 0.015)
    assert compare(Pairs(300, 3, 9), found.smallest_margin + 1e-9).outcome == "pass"
    assert compare(Pairs(300, 3, 9), found.smallest_margin - 1e-9).outcome != "pass"
