from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from serving.local.reconcile import (
    DRAIN_GRACE_S,
    Crashes,
    Drain,
    Forget,
    Kill,
    Replica,
    Start,
    Wanted,
    plan,
)

NOW = 1000.0


def test_agreement_needs_nothing() -> None:
    assert plan([Wanted("a", 1)], [Replica("a-1", "a", alive=True)], {}, NOW) == []


def test_missing_replicas_are_started() -> None:
    found = [Replica("a-1", "a", alive=True)]
    assert plan([Wanted("a", 3)], found, {}, NOW) == [Start("a"), Start("a")]


def test_the_youngest_surplus_replica_is_drained() -> None:
    found = [Replica("old", "a", alive=True), Replica("young", "a", alive=True)]
    assert plan([Wanted("a", 1)], found, {}, NOW) == [Drain("young")]


def test_a_removed_service_is_drained() -> None:
    assert plan([], [Replica("a-1", "a", alive=True)], {}, NOW) == [Drain("a-1")]


def test_a_draining_replica_has_its_grace() -> None:
    draining = Replica("a-1", "a", alive=True, draining_since=NOW - DRAIN_GRACE_S)
    assert plan([], [draining], {}, NOW) == []
    assert plan([], [draining], {}, NOW + 1) == [Kill("a-1")]


def test_a_dead_replica_crashed_unless_it_was_told_to_end() -> None:
    crashed = Replica("a-1", "a", alive=False)
    told = Replica("a-2", "a", alive=False, draining_since=NOW)
    assert plan([], [crashed, told], {}, NOW) == [
        Forget("a-1", crashed=True),
        Forget("a-2", crashed=False),
    ]


def test_a_crashed_service_waits_longer_each_time() -> None:
    assert [Crashes(n).pause_s for n in (0, 1, 2, 3, 99)] == [0, 1, 2, 4, 30]
    crashes = {"a": Crashes(3, NOW)}
    assert plan([Wanted("a", 1)], [], crashes, NOW + 3.9) == []
    assert plan([Wanted("a", 1)], [], crashes, NOW + 4) == [Start("a")]


@given(
    wanted=st.integers(0, 4),
    alive=st.lists(st.booleans(), max_size=6),
)
def test_acting_on_the_plan_reaches_what_is_wanted(wanted: int, alive: list[bool]) -> None:
    found = [Replica(f"a-{i}", "a", alive=up) for i, up in enumerate(alive)]
    actions = plan([Wanted("a", wanted)], found, {}, NOW)
    started = actions.count(Start("a"))
    drained = sum(isinstance(action, Drain) for action in actions)
    assert sum(alive) + started - drained == wanted
