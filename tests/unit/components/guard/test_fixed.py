from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.guard.comparison import Pairs
from components.guard.fixed import accepts, decide, items_needed, judge, power
from components.guard.items import Judged, tally
from components.guard.measures import Measure


def answered(n: int, *, lost: int = 0, gained: int = 0, skill: str = "add") -> list[Judged]:
    """Return items of one skill, of which some changed."""
    return [
        Judged(f"{skill}-{k}", skill, 5, not lost <= k < lost + gained, k >= lost) for k in range(n)
    ]


def test_an_equal_version_is_accepted_and_the_loss_excluded_is_told() -> None:
    found = judge(answered(2000, lost=4, gained=4), margin=0.015)
    assert found.outcome == "accept"
    assert (
        found.reason == f"a loss of more than {found.smallest_margin:.2%} is excluded on 2000 items"
    )
    assert found.smallest_margin < 0.015
    assert found.power > 0.99
    assert (found.n, found.lost, found.gained, found.difference) == (2000, 4, 4, 0.0)


def test_few_items_do_not_suffice_and_how_many_would_is_told() -> None:
    found = judge(answered(100), margin=0.015)
    assert found.outcome == "insufficient"
    assert found.power == 0.0
    assert "100 items can exclude a loss of 2.63%, not of 1.50%" in found.reason
    assert "with 225 items one of 95%" in found.reason
    assert judge(answered(225), margin=0.015).outcome == "accept"


def test_no_items_are_insufficient() -> None:
    found = judge([], margin=0.015)
    assert (found.outcome, found.n, found.power) == ("insufficient", 0, 0.0)
    assert found.smallest_margin == 1.0


def test_a_real_loss_is_refused_and_its_worst_skill_told() -> None:
    items = answered(1000, lost=20) + answered(1000, lost=20, gained=4, skill="sort")
    found = judge(items, margin=0.015)
    assert found.outcome == "refuse"
    assert "lost" in found.reason
    assert "'add'" in found.reason


def test_a_lost_skill_refuses_and_is_named_although_the_total_passes() -> None:
    items = answered(5000) + answered(60, lost=30, skill="table")
    found = judge(items, margin=0.015)
    assert found.low >= -0.015  # the total alone would have been accepted
    assert found.outcome == "refuse"
    assert "it lost skill 'table' (30 answers lost, 0 gained of 60)" in found.reason
    assert [s.name for s in found.slices if s.refused] == ["table"]


def test_a_trifle_is_not_refused_however_significant() -> None:
    found = judge(answered(100_000, lost=300), margin=0.015)
    assert found.outcome == "accept"


def test_a_measure_beyond_its_limit_refuses_by_itself() -> None:
    broken = Measure("mean KL", 2.0, 1.8, 2.2, 0.15, beyond=True)
    found = judge(answered(3000), margin=0.015, measures=[broken])
    assert found.outcome == "refuse"
    assert found.reason == "mean KL is 2, 1.8 to 2.2, beyond the limit of 0.15"


def test_power_against_every_outcome_of_a_small_set() -> None:
    n, changed, margin = 24, 6, 0.3
    p = changed / n / 2
    exact = math.fsum(
        math.comb(n, g) * math.comb(n - g, b) * p ** (g + b) * (1 - 2 * p) ** (n - g - b)
        for g in range(n + 1)
        for b in range(n + 1 - g)
        if accepts(Pairs(n, g, b), margin)
    )
    assert 0.1 < exact < 0.99
    assert power(n, changed, margin) == pytest.approx(exact, abs=1e-6)


def test_power_without_changes_is_all_or_nothing() -> None:
    assert power(100, 0, 0.015) == 0.0
    assert power(200, 0, 0.015) == 1.0


def test_the_items_needed_give_the_power_wanted() -> None:
    needed = items_needed(300, 6, 0.015)
    assert needed is not None
    assert power(needed, round(6 * needed / 300), 0.015) >= 0.95
    assert items_needed(10, 10, 0.0001) is None


@settings(max_examples=60)
@given(
    n=st.integers(1, 3000),
    gained=st.integers(0, 30),
    lost=st.integers(0, 30),
    m=st.floats(0.002, 0.2),
)
def test_the_three_outcomes_exclude_each_other(n: int, gained: int, lost: int, m: float) -> None:
    items = answered(n + gained + lost, gained=gained, lost=lost)
    decision = decide(tally(items), m)
    accepted = accepts(Pairs(len(items), gained, lost), m)
    assert (decision.outcome == "accept") == (accepted and not decision.lost)
    if decision.outcome == "refuse":
        assert lost > gained
    if decision.lost:
        assert decision.outcome == "refuse"
