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
    assert {split.choose_for(str(n)) for n in range(100)} == {"stable"}
    assert Split({"stable": 0}).choose_for("a") is None


@given(key=st.text(), weights=st.lists(st.integers(0, 100), min_size=2))
def test_raising_the_candidates_weight_never_moves_a_conversation_off_it(
    key: str, weights: list[int]
) -> None:
    chosen = [
        Split({"m-v1": 100 - weight, "m-v2": weight}).choose_for(key) for weight in sorted(weights)
    ]
    assert chosen == sorted(chosen, key=str)  # m-v1, then m-v2, and never back


@given(
    key=st.text(),
    weights=st.dictionaries(st.sampled_from("abcd"), st.integers(1, 100), min_size=2),
    more=st.integers(1, 100),
)
def test_raising_one_weight_moves_conversations_only_there(
    key: str, weights: dict[str, int], more: int
) -> None:
    raised = min(weights)
    before = Split(weights).choose_for(key)
    after = Split({**weights, raised: weights[raised] + more}).choose_for(key)
    assert after in (before, raised)


def test_conversations_are_shared_by_weight_and_each_candidate_meets_others() -> None:
    keys = [f"m\0{n}" for n in range(4000)]
    second = {key for key in keys if Split({"m-v1": 90, "m-v2": 10}).choose_for(key) == "m-v2"}
    third = {key for key in keys if Split({"m-v2": 90, "m-v3": 10}).choose_for(key) == "m-v3"}
    for chosen in (second, third):
        assert abs(len(chosen) / len(keys) - 0.1) < 0.02
    assert len(second & third) < 0.5 * len(second)
