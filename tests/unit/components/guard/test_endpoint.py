from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.guard.endpoint import (
    distance,
    distances,
    divergence,
    read_distance,
    read_distances,
)
from penstock.core.errors import CheckpointBroken
from serving.logprobs import Position, ReadAnswer, ToldAnswer

Chances = dict[bytes, float]


def position(token: bytes, chances: Chances) -> Position:
    logs = {key: math.log(p) for key, p in chances.items()}
    return Position(token, logs[token], logs)


def answer(*positions: Position) -> ToldAnswer:
    return ToldAnswer("", positions)


@st.composite
def two_distributions(draw: st.DrawFn) -> tuple[list[float], list[float]]:
    size = draw(st.integers(2, 9))
    weights = st.lists(st.floats(0.01, 50), min_size=size, max_size=size)
    p, q = draw(weights), draw(weights)
    return [x / math.fsum(p) for x in p], [x / math.fsum(q) for x in q]


def top(chances: list[float], k: int) -> dict[bytes, float]:
    best = sorted(range(len(chances)), key=lambda i: -chances[i])[:k]
    return {bytes([i]): math.log(chances[i]) for i in best}


@given(two_distributions(), st.integers(0, 9))
def test_what_is_told_bounds_the_divergence_from_below(
    pair: tuple[list[float], list[float]], k: int
) -> None:
    p, q = pair
    exact = math.fsum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    told, outside = divergence(top(p, k), top(q, k))
    assert -1e-9 <= told <= exact + 1e-4
    both = top(p, k).keys() & top(q, k).keys()
    assert outside == pytest.approx(1 - math.fsum(p[key[0]] for key in both), abs=2e-6)
    if k >= len(p):
        assert told == pytest.approx(exact, abs=1e-4)


def test_divergence_by_hand() -> None:
    half = {b"a": math.log(0.5), b"b": math.log(0.25)}
    other = {b"a": math.log(0.25), b"c": math.log(0.5)}
    # told by both: a; the rest is one outcome
    told, outside = divergence(half, other)
    assert told == pytest.approx(0.5 * math.log(2) + 0.5 * math.log(0.5 / 0.75))
    assert outside == pytest.approx(0.5)


def test_answers_are_compared_until_they_part() -> None:
    same = position(b"a", {b"a": 0.6, b"b": 0.4})
    parent = answer(same, position(b"a", {b"a": 0.6, b"b": 0.4}), same, same)
    new = answer(same, position(b"b", {b"a": 0.3, b"b": 0.7}), same, same)
    found = distance(parent, new)
    assert len(found.kl) == 2
    assert found.kl[0] == pytest.approx(0.0, abs=1e-9)
    assert found.kl[1] == pytest.approx(0.6 * math.log(2) + 0.4 * math.log(4 / 7), abs=1e-4)
    assert (found.same_top, found.not_compared) == (1, 2)
    assert found.log_ratio == pytest.approx(math.log(2))


def test_a_token_that_was_not_told_is_as_likely_as_the_rest_at_most() -> None:
    parent = answer(position(b"x", {b"x": 0.9}))
    new = answer(position(b"a", {b"a": 0.6, b"b": 0.3}))
    assert distance(parent, new).log_ratio == pytest.approx(math.log(0.9) - math.log(0.1))


def test_an_answer_that_ends_early_leaves_the_rest_uncompared() -> None:
    same = position(b"a", {b"a": 0.6, b"b": 0.4})
    found = distance(answer(same, same, same), answer(same))
    assert (len(found.kl), found.not_compared) == (1, 2)
    assert distances([answer()], [answer(same)])[0].kl == ()


def test_as_many_answers_are_needed_from_both() -> None:
    with pytest.raises(ValueError, match="zip"):
        distances([answer()], [])


def test_answers_that_both_were_made_to_say_are_compared_to_their_end() -> None:
    parent = ReadAnswer(
        (position(b"1", {b"1": 0.7, b"2": 0.3}), position(b"2", {b"1": 0.6, b"2": 0.4}))
    )
    new = ReadAnswer(
        (position(b"1", {b"1": 0.4, b"2": 0.6}), position(b"2", {b"1": 0.9, b"2": 0.1}))
    )
    found = read_distance(parent, new)
    assert found.kl == pytest.approx(
        (
            0.7 * math.log(0.7 / 0.4) + 0.3 * math.log(0.3 / 0.6),
            0.6 * math.log(0.6 / 0.9) + 0.4 * math.log(0.4 / 0.1),
        ),
        abs=1e-4,
    )
    assert found.log_ratio == pytest.approx(math.log(0.7 / 0.4) + math.log(0.4 / 0.1))
    assert (found.same_top, found.not_compared) == (1, 0)
    assert read_distances([parent], [parent])[0].log_ratio == 0


def test_other_tokens_for_the_same_answer_are_a_broken_checkpoint() -> None:
    one = ReadAnswer((position(b"1", {b"1": 0.7, b"2": 0.3}),))
    other = ReadAnswer((position(b"2", {b"1": 0.7, b"2": 0.3}),))
    with pytest.raises(CheckpointBroken, match="other tokens than its parent"):
        read_distance(one, other)
    with pytest.raises(CheckpointBroken):
        read_distance(one, ReadAnswer(one.positions * 2))
