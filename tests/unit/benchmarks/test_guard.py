"""The benchmark judges by the product's own rule, on populations that are what they say."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.guard import Population, may_decide, population, wald
from components.guard import sequential
from components.guard.verdict import FALSE_REFUSE


def difference(drawn: Population) -> tuple[float, float]:
    """Return the population's loss and its share of changed answers."""
    _, gained, lost = drawn.chances @ drawn.counts[:, 0]
    return float(lost - gained), float(lost + gained)


def test_populations_lose_what_their_names_say() -> None:
    assert difference(population("int3-row", "equal")) == pytest.approx((0.0, 34 / 2100))
    assert difference(population("int3-row", "drop 2"))[0] == pytest.approx(0.02)
    assert difference(population("int3-row", "drop 2 of 10")) == pytest.approx((0.02, 0.10))
    assert difference(population("int2-g32", "recorded")) == pytest.approx((334 / 2100, 356 / 2100))


@pytest.mark.parametrize(
    ("version", "change"),
    [("int3-row", "drop 5"), ("forgetful", "recorded"), ("int4-row", "equal")],
)
def test_no_look_that_is_skipped_would_have_decided(version: str, change: str) -> None:
    drawn, decided = population(version, change), 0
    generator = np.random.default_rng(2)
    for _ in range(12):
        looks = drawn.draw([sequential.BATCH] * 90, generator)
        near = may_decide(looks, 0.015)
        for counted, asked in zip(looks, near, strict=True):
            known = sequential.decide(drawn.tally(counted), 0.015).outcome != "insufficient"
            assert asked or not known
            decided += known
    assert decided


def test_what_wald_says() -> None:
    """By hand, for 95 %: ln 38 and ln(0.05/0.975), over (1.96 + 1.645)² / 2."""
    assert FALSE_REFUSE == 0.05
    assert wald(0.95) == pytest.approx(2 * (0.95 * 3.6376 - 0.05 * 2.9704) / 12.995, abs=1e-4)
    assert wald(0.80) > 0.6
