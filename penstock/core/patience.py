"""How long to go on asking a server that does not answer, and how long to wait in between."""

from __future__ import annotations

from collections.abc import Callable

from penstock.core.errors import LifecycleError


class Unanswered(LifecycleError):
    """A server did not answer, or cannot answer now.

    Args:
        message: What was asked, and what happened.
        hint: The next step.
        after_s: How long the server wants to be left alone, in seconds.
        executed: False if the request certainly was not executed; True if nobody can tell.
    """

    def __init__(
        self, message: str, *, hint: str = "", after_s: float = 0.0, executed: bool = True
    ) -> None:
        super().__init__(message, hint=hint)
        self.after_s = after_s
        self.executed = executed


def wait_s(attempt: int, *, after_s: float, jitter: float, longest_s: float = 5.0) -> float:
    """Return how long to wait before the next attempt, in seconds.

    Args:
        attempt: How many have failed, from 1.
        after_s: What the server asked for; never less than this.
        jitter: Between 0 and 1: spreads those who fail at the same time.
        longest_s: Where doubling ends.
    """
    doubled = min(longest_s, 0.1 * 2.0 ** min(attempt - 1, 10))
    return max(after_s, doubled * (0.5 + 0.5 * jitter))


class Attempts:
    """The attempts of one operation, beginning now.

    Args:
        total_s: From the first attempt to giving up, in seconds.
        clock: Seconds of a clock that only goes forward.
        pause: Waits so many seconds.
        jitter: Between 0 and 1.
    """

    def __init__(
        self,
        total_s: float,
        clock: Callable[[], float],
        pause: Callable[[float], object],
        jitter: Callable[[], float],
    ) -> None:
        self._total_s, self._clock, self._pause, self._jitter = total_s, clock, pause, jitter
        self._failed = 0
        self._start = clock()

    @property
    def left_s(self) -> float:
        """How much of the whole time is left, in seconds."""
        return self._total_s - (self._clock() - self._start)

    def again(self, problem: Unanswered) -> None:
        """Wait before the next attempt; raise the problem if there is no time for one."""
        self._failed += 1
        pause_s = wait_s(self._failed, after_s=problem.after_s, jitter=self._jitter())
        if pause_s >= self.left_s:
            waited_s = self._clock() - self._start
            raise type(problem)(
                f"{problem}; attempts: {self._failed}, in {waited_s:.1f} s",
                hint=problem.hint,
                after_s=problem.after_s,
                executed=problem.executed,
            ) from problem
        self._pause(pause_s)
