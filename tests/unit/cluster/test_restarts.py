"""A component that is killed comes back; one that is broken does not for ever."""

from __future__ import annotations

from tests.cluster.restarts import FIRST_S, MOST, WITHIN_S, Restarts


def test_each_end_in_a_row_waits_longer_until_it_is_left_alone() -> None:
    restarts, now, waited = Restarts(), 100.0, list[float]()
    while (again := restarts.ended("kubelet", now)) is not None:
        waited.append(again - now)
        now = again
    assert waited == [FIRST_S * 2.0**n for n in range(MOST - 1)]
    assert restarts.ended("etcd", now) == now + FIRST_S  # another one


def test_ends_that_are_long_ago_do_not_count() -> None:
    restarts = Restarts()
    for number in range(3 * MOST):
        now = number * WITHIN_S
        assert restarts.ended("kubelet", now) == now + FIRST_S
