from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.guard.comparison import Pairs
from components.guard.multiplicity import (
    counts,
    holm,
    loss_evidence,
    lost_slices,
    safety_evidence,
    sign_p,
)

few = st.integers(0, 60)


def test_sign_p_by_hand() -> None:
    assert sign_p(0, 0) == 1.0
    assert sign_p(0, 5) == 1 / 32
    assert sign_p(5, 0) == 1.0
    assert sign_p(2, 8) == pytest.approx((1 + 10 + 45) / 2**10)
    assert sign_p(2500, 2500) == pytest.approx(0.5, abs=0.01)


@given(few, few)
def test_sign_p_falls_with_losses_and_both_sides_overlap_in_the_middle(
    gained: int, lost: int
) -> None:
    assert sign_p(gained, lost + 1) <= sign_p(gained, lost)
    middle = math.comb(gained + lost, lost) / 2 ** (gained + lost)
    assert sign_p(gained, lost) + sign_p(lost, gained) == pytest.approx(1 + middle)


def test_sign_p_of_very_many_changes_meets_the_exact_one() -> None:
    for lost in (2450, 2500, 2600):
        exact, normal = sign_p(5000 - lost, lost), sign_p(5001 - lost, lost)
        assert normal == pytest.approx(exact, rel=0.08)


def test_holm_by_hand() -> None:
    # Holm (1979): 0.01·4, 0.02·3, then floors
    assert holm([0.02, 0.01, 0.03, 0.9]) == pytest.approx([0.06, 0.04, 0.06, 0.9])
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_keeps_order_and_never_beats_one_test_or_bonferroni(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    for p, a in zip(p_values, adjusted, strict=True):
        assert p <= a <= 1
    assert min(adjusted) == min(1.0, min(p_values) * len(p_values))
    order = sorted(range(len(p_values)), key=lambda k: p_values[k])
    assert [adjusted[k] for k in order] == sorted(adjusted)


@given(few, few, few)
def test_evidence_of_loss_grows_with_losses_only(same: int, gained: int, lost: int) -> None:
    n = same + gained + lost
    less, more, calm = loss_evidence(
        counts([Pairs(n, gained, lost), Pairs(n + 1, gained, lost + 1), Pairs(n + 9, gained, lost)])
    )
    assert more > less
    assert calm == less


@given(few, few, few, st.fractions(0, Fraction(1, 2)))
def test_evidence_of_safety_falls_with_losses_and_grows_with_the_margin(
    same: int, gained: int, lost: int, margin: Fraction
) -> None:
    pairs = counts([Pairs(same + gained + lost, gained, lost)])
    worse = counts([Pairs(same + gained + lost + 1, gained, lost + 1)])
    assert safety_evidence(worse, margin) < safety_evidence(pairs, margin)
    assert safety_evidence(pairs, margin + Fraction(1, 100)) >= safety_evidence(pairs, margin)


@pytest.mark.parametrize(("gain", "loss"), [(0.1, 0.1), (0.0, 0.3), (0.25, 0.55)])
def test_evidence_is_worth_at_most_one_where_its_null_holds(gain: float, loss: float) -> None:
    """Exact: the mean over every outcome of 12 items; margin = loss - gain, the null's edge."""
    n = 12
    margin = Fraction(str(loss)) - Fraction(str(gain))
    outcomes = [(g, b) for g in range(n + 1) for b in range(n + 1 - g)]
    seen = counts([Pairs(n, g, b) for g, b in outcomes])
    chances = np.array(
        [
            math.comb(n, g)
            * math.comb(n - g, b)
            * gain**g
            * loss**b
            * (1 - gain - loss) ** (n - g - b)
            for g, b in outcomes
        ]
    )
    assert chances.sum() == pytest.approx(1)
    assert float(np.exp(safety_evidence(seen, margin)) @ chances) <= 1
    if gain == loss:
        assert float(np.exp(loss_evidence(seen)) @ chances) <= 1


def test_a_slice_is_named_if_it_lost_significantly_and_more_than_the_margin() -> None:
    slices = {
        ("skill", "broken"): Pairs(100, 0, 30),
        ("skill", "worst"): Pairs(100, 0, 60),
        ("skill", "trifle"): Pairs(100_000, 0, 100),
        ("skill", "noise"): Pairs(10, 0, 2),
    }
    adjusted = dict(
        zip(slices, holm([sign_p(p.gained, p.lost) for p in slices.values()]), strict=True)
    )
    named = lost_slices(slices, adjusted, alpha=0.025, margin=0.015)
    assert named == (("skill", "worst"), ("skill", "broken"))
