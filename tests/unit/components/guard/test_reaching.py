from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.guard.comparison import Pairs
from components.guard.multiplicity import counts, loss_evidence
from components.guard.reaching import chance_of_reaching


def evidence(gained: int, lost: int) -> float:
    (found,) = loss_evidence(counts([Pairs(gained + lost, gained, lost)]))
    return found


def within(changes: int, enough: float, loss: float) -> float:
    """Return the chance of reaching `enough` within so many changes, each a loss with `loss`."""
    alive, reached = {0: 1.0}, 0.0
    for seen in range(1, changes + 1):
        after: dict[int, float] = {}
        for lost, chance in alive.items():
            after[lost] = after.get(lost, 0.0) + chance * (1 - loss)
            after[lost + 1] = after.get(lost + 1, 0.0) + chance * loss
        told = loss_evidence(counts([Pairs(seen, seen - lost, lost) for lost in after]))
        there = [lost for lost, log in zip(after, told, strict=True) if log >= enough]
        reached += sum(after.pop(lost) for lost in there)
        alive = after
    return reached


@pytest.mark.parametrize("seen", [(0, 4), (0, 6), (1, 9), (5, 18), (40, 80)])
def test_it_is_at_least_what_a_walk_of_any_length_finds_and_little_more(
    seen: tuple[int, int],
) -> None:
    enough = evidence(*seen)
    told, found = chance_of_reaching(enough), within(400, enough, 0.5)
    assert found <= told <= 1.12 * found + 1e-9
    assert told < math.exp(-enough), "Ville's inequality gives the last bet's win away"


@pytest.mark.parametrize("loss", [0.0, 0.2, 0.4, 0.49])
def test_a_fair_coin_is_the_worst_case(loss: float) -> None:
    enough = evidence(1, 9)
    assert within(200, enough, loss) < within(200, enough, 0.5)


def test_six_losses_and_no_gain_are_enough() -> None:
    assert math.exp(-evidence(0, 6)) > 0.025, "not by Ville's inequality"
    assert chance_of_reaching(evidence(0, 6)) <= 0.025 < chance_of_reaching(evidence(0, 5))


@settings(max_examples=50, deadline=None)
@given(st.floats(-5, 30), st.floats(0, 3))
def test_more_evidence_is_less_likely(log: float, more: float) -> None:
    less, least = chance_of_reaching(log), chance_of_reaching(log + more)
    assert 0 < least <= less <= 1
    assert less <= min(1.0, math.exp(-log))


def test_where_everybody_starts_nothing_is_proved() -> None:
    assert chance_of_reaching(0.0) == chance_of_reaching(-3.0) == 1.0
