"""To create something exactly once, although requests and answers get lost.

The API has no idempotency key, so what is created has a name of its own. A request whose end is
not known is followed by looking for that name, for as long as the server may still be at it; only
then it is sent again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from penstock.core.errors import LifecycleError, PipelinesError
from pipelines.submission.errors import Unavailable
from pipelines.submission.patience import Patience, Tries
from pipelines.submission.refusals import unsure

T = TypeVar("T")
_LOOKS = 5


def create_once(
    patience: Patience,
    *,
    send: Callable[[Tries], T],
    find: Callable[[Tries], Sequence[T]],
    drop: Callable[[T], object],
    doubt: str,
) -> T:
    """Return what was created, and is there once.

    Args:
        patience: Bounds in time.
        send: Creates it, by one request.
        find: Returns what has its name, the oldest first.
        drop: Removes a second one, which a request that was thought lost has made after all.
        doubt: What shows whether it is there, for a person: when the time is up, nobody can tell.
    """
    tries = patience.tries()
    lost = False
    while True:
        try:
            made = send(tries)
        except LifecycleError as problem:
            doubtful = unsure(problem)
            lost = lost or doubtful
            try:
                found = _look(patience, tries, find, problem) if doubtful else []
                if not found and isinstance(problem, Unavailable):
                    tries.again(problem)
            except PipelinesError as nothing:  # it cannot be looked for, or the time is up
                raise _nobody_knows(nothing, doubt) if lost else nothing from problem
            if found:
                return _the_first(found, drop)
            if not isinstance(problem, Unavailable):
                raise
        else:
            return _the_first(_all(find, tries, made), drop) if lost else made


def _nobody_knows(problem: PipelinesError, doubt: str) -> Unavailable:
    return Unavailable(
        f"{problem}; it may have been created",
        hint=f"look before you try again: {doubt}",
        executed=True,
    )


def _all(find: Callable[[Tries], Sequence[T]], tries: Tries, made: T) -> Sequence[T]:
    try:
        return find(tries) or [made]
    except PipelinesError:
        return [made]  # there is one: that much is certain


def _look(
    patience: Patience,
    tries: Tries,
    find: Callable[[Tries], Sequence[T]],
    problem: LifecycleError,
) -> Sequence[T]:
    """Look for it now, and again until it must have been created if it ever is."""
    looks = _LOOKS if isinstance(problem, Unavailable) else 1
    for look in range(looks):
        found = find(tries)
        if found or look == looks - 1:
            return found
        tries.pause(patience.settle_s / (looks - 1))
    return []


def _the_first(found: Sequence[T], drop: Callable[[T], object]) -> T:
    for second in found[1:]:
        drop(second)
    return found[0]
