from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.rollout.eprocess import BETS, UNIT, factors, log_evidence, log_mean, stakes

FAIR = (Fraction(-1), Fraction(1))


def _e(path: tuple[int, ...], table: np.ndarray[tuple[int, int], np.dtype[np.int64]]) -> float:
    return math.exp(log_evidence(stakes(1) + sum(table[i] for i in path))[0])


def test_one_observation_exactly() -> None:
    table = factors(FAIR)
    for k, bet in enumerate(BETS):
        for row, x in enumerate(FAIR):
            exact = math.log(1 + float(bet) * 0.98 * float(x))
            assert 0 <= exact * UNIT - table[row, k] < 2
    assert _e((1,), table) == pytest.approx(1 + 0.98 * float(sum(BETS)) / len(BETS), abs=1e-8)


@pytest.mark.parametrize(
    "stop",
    [
        lambda _e, _path: False,
        lambda e, _path: e >= 1.5,
        lambda e, path: len(path) >= 2 and e > 1,
        lambda e, path: path[-1] == 1 or e < 0.3,
    ],
    ids=["never", "first above 1.5", "second thoughts", "after a gain"],
)
@settings(max_examples=15, deadline=None)
@given(p=st.fractions(0, Fraction(1, 2)))
def test_the_mean_at_any_stopping_time_is_at_most_one(
    stop: Callable[[float, tuple[int, ...]], bool], p: Fraction
) -> None:
    """All 2^8 sequences of a coin that is fair or worse, each stopped when the rule says so."""
    table, total = factors(FAIR), 0.0
    ended: set[tuple[int, ...]] = set()
    for path in itertools.product((0, 1), repeat=8):
        for n in range(1, 9):
            if n == 8 or stop(_e(path[:n], table), path[:n]):
                head = path[:n]
                break
        if head not in ended:
            ended.add(head)
            chance = float(p) ** sum(head) * float(1 - p) ** (len(head) - sum(head))
            total += chance * _e(head, table)
    assert total <= 1 + 1e-6


@given(st.lists(st.integers(0, 2), max_size=40), st.randoms())
def test_order_does_not_matter_to_the_last_bit(seen: list[int], random: object) -> None:
    table = factors((Fraction(-1, 3), Fraction(0), Fraction(2, 3)))
    one_by_one = stakes(1)[0]
    for value in reversed(seen):
        one_by_one = one_by_one + table[value]
    counts = np.bincount(np.array(seen, dtype=np.int64), minlength=3)
    assert (one_by_one == counts @ table).all()


def test_nothing_seen_says_nothing() -> None:
    assert log_evidence(stakes(1)) == [0.0]
    assert log_mean([0.0, 0.0]) == 0.0
    assert log_mean([math.log(3), math.log(1)]) == pytest.approx(math.log(2), abs=2e-9)
    assert log_mean([-5000.0, 2000.0]) == pytest.approx(2000 - math.log(2), abs=1e-6)
