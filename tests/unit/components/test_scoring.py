from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.steps.scoring import Share, latency, perplexity, quantile


def test_wilson_by_hand() -> None:
    low, high = Share(10, 8).interval
    assert [low, high] == pytest.approx([0.4902, 0.9433], abs=1e-4)
    assert Share(0, 0).interval == (0.0, 1.0)


@given(n=st.integers(1, 3000), data=st.data())
def test_the_interval_holds_the_share(n: int, data: st.DataObject) -> None:
    share = Share(n, data.draw(st.integers(0, n)))
    low, high = share.interval
    assert 0 <= low <= share.share <= high <= 1
    assert low < high


def test_perplexity_is_per_token() -> None:
    assert perplexity([(math.log(0.25), 1), (math.log(0.5) * 3, 3)]) == pytest.approx(2 ** (5 / 4))
    assert perplexity(None) is None
    assert perplexity([]) is None


def test_quantiles_are_observed_values() -> None:
    assert quantile([1.0, 2.0, 3.0, 4.0], 0.5) == 2.0
    assert quantile([1.0, 2.0, 3.0, 4.0], 0.95) == 4.0


def test_latency_needs_observed_first_tokens() -> None:
    assert latency([None, None], [1.0, 2.0]) is None
    told = latency([0.1, None, 0.3], [1.0, 2.0, 3.0])
    assert told is not None
    assert (told["requests"], told["ttft_s"]["p95"], told["e2e_s"]["p50"]) == (2, 0.3, 2.0)
