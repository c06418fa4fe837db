"""Created exactly once, whatever is lost."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from penstock.core.errors import LifecycleError
from pipelines.submission.errors import Missing, Rejected, Unavailable
from pipelines.submission.once import create_once
from pipelines.submission.patience import Tries
from tests.fakes.kfp.faked_time import FakedTime

LOST = Unavailable("lost", executed=True)
CLOSED = Unavailable("closed", executed=False)


class Server:
    """Keeps names; says how each request ends."""

    def __init__(self, *ends: LifecycleError | None, made_by: tuple[int, ...] = ()) -> None:
        self.ends = list(ends)
        self.made_by = made_by
        """Which of the requests that failed were executed."""
        self.sent = 0
        self.kept: list[int] = []
        self.dropped: list[int] = []
        self.looks = 0
        self.late: dict[int, int] = {}
        """What is created at a look, by its number."""
        self.blind: LifecycleError | None = None

    def send(self, _: Tries) -> int:
        self.sent += 1
        end = self.ends.pop(0) if self.ends else None
        if end is None or self.sent in self.made_by:
            self.kept.append(self.sent)
        if end is not None:
            raise end
        return self.sent

    def find(self, _: Tries) -> list[int]:
        self.looks += 1
        if self.looks in self.late:
            self.kept.insert(0, self.late[self.looks])
        if self.blind is not None:
            raise self.blind
        return list(self.kept)

    def drop(self, second: int) -> None:
        self.kept.remove(second)
        self.dropped.append(second)


def create(server: Server, total_s: float = 60.0) -> int:
    patience = FakedTime().patience(total_s=total_s)
    find: Callable[[Tries], list[int]] = server.find
    return create_once(
        patience, send=server.send, find=find, drop=server.drop, doubt="penstock runs list"
    )


def test_the_usual_case_looks_for_nothing() -> None:
    server = Server()
    assert create(server) == 1
    assert server.looks == 0


def test_what_was_turned_away_is_sent_again() -> None:
    server = Server(CLOSED, CLOSED)
    assert create(server) == 3
    assert (server.kept, server.looks) == ([3], 0)


def test_a_lost_answer_is_found() -> None:
    server = Server(LOST, made_by=(1,))
    assert create(server) == 1
    assert (server.sent, server.kept) == (1, [1])


def test_a_lost_request_is_sent_again_after_looking_long_enough() -> None:
    server = Server(LOST)
    assert create(server) == 2
    assert server.looks == 6  # five while it may settle, one for what came late
    assert server.kept == [2]


@pytest.mark.parametrize("look", [1, 3, 5])
def test_what_is_executed_late_is_found(look: int) -> None:
    server = Server(LOST)
    server.late = {look: 1}
    assert create(server) == 1
    assert server.sent == 1


def test_what_is_executed_very_late_is_dropped_again() -> None:
    server = Server(LOST)
    server.late = {6: 1}
    assert create(server) == 1
    assert (server.kept, server.dropped) == ([1], [2])


def test_an_error_after_the_fact_is_no_error() -> None:
    server = Server(Rejected("500", status=500), made_by=(1,))
    assert create(server) == 1
    assert server.looks == 1


def test_a_refusal_is_passed_on_at_once() -> None:
    server = Server(Rejected("400", status=400))
    with pytest.raises(Rejected, match="400"):
        create(server)
    assert (server.sent, server.looks) == (1, 0)


def test_an_error_of_the_server_is_passed_on_once_nothing_is_found() -> None:
    server = Server(Rejected("500", status=500))
    with pytest.raises(Rejected, match="500"):
        create(server)
    assert (server.sent, server.looks) == (1, 1)


@pytest.mark.parametrize("blind", [Rejected("500", status=500), LOST, Missing("no experiment")])
def test_who_cannot_look_says_so_and_sends_nothing_more(blind: LifecycleError) -> None:
    server = Server(LOST, made_by=(1,))
    server.blind = blind
    with pytest.raises(Unavailable, match="may have been created") as told:
        create(server)
    assert told.value.hint == "look before you try again: penstock runs list"
    assert server.kept == [1]


def test_an_end_comes_when_the_time_is_up() -> None:
    server = Server(*[CLOSED] * 100)
    with pytest.raises(Unavailable, match="attempts: "):
        create(server, total_s=10)
    assert server.sent < 12
