from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.guard.inprocess import distance
from components.guard.items import Distance
from components.guard.measures import Limits, Measure, measures


def by_name(found: list[Measure]) -> dict[str, Measure]:
    return {measure.name: measure for measure in found}


def steady(kl: float, *, items: int = 100, tokens: int = 5, same: int = 5) -> list[Distance]:
    return [Distance((kl,) * tokens, same, tokens * kl) for _ in range(items)]


def test_values_are_over_tokens_not_items() -> None:
    long, short = Distance((0.1,) * 9, 9, 0.9), Distance((1.1,), 0, 0.1)
    found = by_name(measures([long, short] * 20))
    assert found["mean KL"].value == pytest.approx(0.2)
    assert found["same top token"].value == pytest.approx(0.9)
    assert found["perplexity ratio"].value == pytest.approx(math.exp(0.1))
    assert found["99.9% KL"].value == pytest.approx(1.1)


def test_the_tail_is_what_all_but_one_of_1000_tokens_do_not_exceed() -> None:
    items = [Distance(tuple(k / 1000 for k in range(r, 2000, 40)), 0, 0.0) for r in range(40)]
    assert by_name(measures(items))["99.9% KL"].value == pytest.approx(1.997)


def test_items_are_resampled_not_tokens() -> None:
    """With all tokens of an item alike, a hundred tokens say no more than one."""
    generator = np.random.default_rng(3)
    values = generator.exponential(0.1, 60).tolist()
    once = measures([Distance((v,), 1, v) for v in values])
    often = measures([Distance((v,) * 100, 100, 100 * v) for v in values])
    assert (once[0].low, once[0].high) == pytest.approx((often[0].low, often[0].high))
    low, high = once[0].low, once[0].high
    assert low is not None
    assert high is not None
    error = 1.96 * float(np.std(values)) / math.sqrt(60)
    assert high - low == pytest.approx(2 * error, rel=0.15)


def test_only_an_interval_wholly_beyond_refuses() -> None:
    mixed = [Distance((kl,), 1, 0.0) for kl in [0.0] * 50 + [0.5] * 50]
    found = measures(mixed)[0]
    assert found.value > 0.15
    assert found.beyond
    unsure = measures([Distance((kl,), 1, 0.0) for kl in [0.0] * 75 + [0.7] * 25])[0]
    assert unsure.value > 0.15
    assert not unsure.beyond


def test_each_limit_can_refuse() -> None:
    names = {m.name for m in measures(steady(9.0, same=0)) if m.beyond}
    assert names == {"mean KL", "99.9% KL", "same top token", "perplexity ratio"}
    assert not any(m.beyond for m in measures(steady(0.01)))


def test_limits_are_the_callers() -> None:
    assert measures(steady(0.01), Limits(mean_kl=0.001))[0].beyond


def test_few_items_bound_nothing() -> None:
    found = measures(steady(9.0, items=19, same=0))
    assert all((m.low, m.high, m.beyond) == (None, None, False) for m in found)
    assert measures([]) == []
    assert measures([Distance((), 0, 0.0)]) == []


def test_without_one_other_top_token_certainty_is_not_claimed() -> None:
    found = by_name(measures(steady(0.0, items=100)))["same top token"]
    assert found.value == found.high == 1.0
    assert found.low == pytest.approx(0.025 ** (1 / 100))


def test_what_endpoints_leave_out_is_told() -> None:
    items = [Distance((0.1, 0.2), 1, 0.0, truncated=0.5, not_compared=2)] * 30
    found = by_name(measures(items))
    assert found["truncated mass"].value == pytest.approx(0.25)
    assert found["tokens not compared"].value == pytest.approx(0.5)
    assert "truncated mass" not in by_name(measures(steady(0.1)))


def test_an_infinite_ratio_is_a_large_number() -> None:
    found = by_name(measures([Distance((0.1,), 1, 1e6)] * 30))["perplexity ratio"]
    assert math.isfinite(found.value)
    assert found.beyond


def test_distance_by_hand() -> None:
    p = np.log(np.array([[0.5, 0.25, 0.25], [0.2, 0.2, 0.6]], dtype=np.float32))
    q = np.log(np.array([[0.25, 0.5, 0.25], [0.2, 0.2, 0.6]], dtype=np.float32))
    found = distance(p, q, [0, 2])
    assert found.kl == pytest.approx((0.25 * math.log(2), 0.0), abs=1e-6)
    assert found.same_top == 1
    assert found.log_ratio == pytest.approx(math.log(2), abs=1e-6)


@given(st.lists(st.lists(st.floats(-8, 8), min_size=6, max_size=6), min_size=2, max_size=6))
def test_a_distance_is_never_negative_and_nothing_from_itself(rows: list[list[float]]) -> None:
    logits = np.array(rows, dtype=np.float32)
    p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    q = p[::-1].copy()
    answer = [0] * len(rows)
    assert all(kl >= 0 for kl in distance(p, q, answer).kl)
    same = distance(p, p, answer)
    assert same.kl == (0.0,) * len(rows)
    assert same.same_top == len(rows)
