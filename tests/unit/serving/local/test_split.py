from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from serving.local.split import Split


@given(
    weights=st.dictionaries(st.sampled_from("abcd"), st.integers(0, 100), min_size=1),
    requests=st.integers(1, 500),
)
def test_every_share_is_within_one_request_per_backend(
    weights: dict[str, int], requests: int
) -> None:
    split, total = Split(weights), sum(weights.values())
    seen = Counter(split.choose() for _ in range(requests))
    if total == 0:
        assert seen == {None: requests}
        return
    for name, weight in weights.items():
        assert abs(seen[name] - requests * weight / total) <= len(weights)


def test_weight_zero_gets_nothing() -> None:
    split = Split({"stable": 100, "candidate": 0})
    assert {split.choose() for _ in range(100)} == {"stable"}
