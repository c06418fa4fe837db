"""Which neighbours of a refused recipe are tried, and in how few tries the smallest is found."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.quantization.search import (
    Candidate,
    Judgement,
    Point,
    Sensitivity,
    candidates,
    pareto,
    search,
    size_of,
)
from penstock.core.errors import RecipeImpossible
from penstock.core.recipes import W4A16, Awq, Fp8Dynamic, Recipe

LAYERS = [
    Sensitivity(("a.q_proj", "a.k_proj"), 0.10, 1000),
    Sensitivity(("a.o_proj",), 0.05, 100),
    Sensitivity(("b.o_proj",), 0.02, 1000),
    Sensitivity(("c.o_proj",), 0.01, 1000),
    Sensitivity(("d.o_proj",), 0.001, 1000),
]


def test_candidates_come_smallest_first_and_never_the_refused_one() -> None:
    refused = W4A16(group_size=128)
    found = candidates(refused, LAYERS)
    assert [c.bytes for c in found] == sorted(c.bytes for c in found)
    assert refused not in [c.recipe for c in found]
    assert len({c.recipe.digest for c in found}) == len(found)
    assert {getattr(c.recipe, "group_size", 0) for c in found} == {32, 64, 128}


def test_the_layers_that_lose_most_per_byte_are_spared_first() -> None:
    found = candidates(W4A16(group_size=32), LAYERS)
    spared = [getattr(c.recipe, "fp8_layers", ()) for c in found]
    assert spared == [
        ("a.o_proj",),
        ("a.o_proj", "a.q_proj", "a.k_proj"),
        ("a.o_proj", "a.q_proj", "a.k_proj", "b.o_proj", "c.o_proj"),
    ]


def test_spared_layers_stay_in_16_bits_where_fp8_does_not_run() -> None:
    for found in (
        candidates(W4A16(group_size=32), LAYERS, mixed=False),
        candidates(Awq(group_size=32), LAYERS),
        candidates(Fp8Dynamic(), LAYERS),
    ):
        assert [c.recipe.ignore for c in found][:2] == [
            ("lm_head", "a.o_proj"),
            ("lm_head", "a.o_proj", "a.q_proj", "a.k_proj"),
        ]


def test_group_sizes_that_do_not_divide_are_not_tried() -> None:
    found = candidates(W4A16(group_size=128), LAYERS, group_sizes=(32, 64))
    assert {getattr(c.recipe, "group_size", 0) for c in found} == {32, 64}


def test_a_search_goes_on_from_what_was_spared_already() -> None:
    found = candidates(W4A16(group_size=32, fp8_layers=("a.o_proj",)), LAYERS)
    assert all("a.o_proj" in getattr(c.recipe, "fp8_layers", ()) for c in found)
    assert getattr(found[0].recipe, "fp8_layers", ()) == ("a.o_proj", "a.q_proj", "a.k_proj")


def test_the_size_counts_bits_per_layer() -> None:
    assert size_of(Fp8Dynamic(), LAYERS) == 4100
    assert size_of(Fp8Dynamic(ignore=("lm_head", "a.o_proj")), LAYERS) == 4200
    assert size_of(W4A16(group_size=128, fp8_layers=("a.o_proj",)), LAYERS) == 100 + 4000 * 33 // 64


def _numbered(count: int) -> list[Candidate]:
    return [Candidate(W4A16(ignore=("lm_head", str(n))), n) for n in range(count)]


@given(count=st.integers(0, 60), first=st.integers(0, 70))
def test_the_smallest_that_passes_is_found_in_few_tries(count: int, first: int) -> None:
    found = search(
        _numbered(count),
        lambda r: Judgement(int(r.ignore[1]) >= first, 0.0),
        budget=100,
    )
    assert not found.exhausted
    assert (found.accepted.candidate.bytes if found.accepted else None) == (
        first if first < count else None
    )
    assert len(found.tried) <= 2 * math.log2(count + 1) + 1


@given(budget=st.integers(0, 6), first=st.integers(0, 40))
def test_a_search_never_tries_more_than_its_budget(budget: int, first: int) -> None:
    attempts: list[Recipe] = []

    def attempt(recipe: Recipe) -> Judgement:
        attempts.append(recipe)
        return Judgement(int(recipe.ignore[1]) >= first, 0.5)

    found = search(_numbered(40), attempt, budget)
    assert len(attempts) == len(found.tried) <= budget
    assert len(set(attempts)) == len(attempts), "nothing is made twice"
    if found.accepted:
        assert found.accepted.candidate.bytes >= first
    if not found.exhausted:
        assert (found.accepted is None) == (first >= 40)


def test_what_cannot_be_made_counts_as_refused_with_its_reason() -> None:
    def attempt(recipe: Recipe) -> Judgement:
        if recipe.ignore[1] == "0":
            raise RecipeImpossible("does not fit")
        return Judgement(True, 0.9)

    found = search(_numbered(2), attempt, 5)
    assert found.tried[0].judgement == Judgement(False, 0.0, "does not fit")
    assert found.accepted is not None
    assert found.accepted.judgement.quality == 0.9


POINTS = [
    Point("parent", 100, 0.9, 10.0),
    Point("fp8", 60, 0.89, 10.0),
    Point("int4", 30, 0.7, 12.0),
    Point("worse", 60, 0.6, 9.0),
]


def test_the_front_leaves_out_what_another_beats() -> None:
    assert [p.label for p in pareto(POINTS)] == ["int4", "fp8", "parent"]


def test_a_slow_point_is_not_beaten_by_one_whose_speed_is_unknown_but_for_size_or_quality() -> None:
    unknown = Point("unknown", 60, 0.89)
    assert [p.label for p in pareto([*POINTS, unknown])] == ["int4", "fp8", "unknown", "parent"]


@given(
    st.lists(
        st.builds(
            Point,
            st.uuids().map(str),
            st.integers(1, 5),
            st.sampled_from([0.1, 0.2, 0.3]),
            st.sampled_from([1.0, 2.0]),
        ),
        max_size=12,
    )
)
def test_everything_off_the_front_is_beaten_by_something_on_it(points: list[Point]) -> None:
    front = pareto(points)
    for point in points:
        if point not in front:
            assert any(
                f.size_bytes <= point.size_bytes
                and f.quality >= point.quality
                and (f.speed or 0) >= (point.speed or 0)
                for f in front
            )
    assert bool(front) == bool(points)


@pytest.mark.parametrize("recipe", [W4A16(group_size=32), Fp8Dynamic()])
def test_without_sensitivities_only_smaller_groups_are_left(recipe: Recipe) -> None:
    assert candidates(recipe, []) == []
