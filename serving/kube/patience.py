"""How long to try, and how long to wait in between."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from serving.kube.errors import Unreachable


def wait_s(attempt: int, *, after_s: float, jitter: float, longest_s: float = 5.0) -> float:
    """Return how long to wait before the next attempt.

    Args:
        attempt: How many have failed, from 1.
        after_s: What the server asked for; never less than this.
        jitter: Between 0 and 1: spreads those who fail at the same time.
        longest_s: Where doubling ends.
    """
    doubled = min(longest_s, 0.1 * 2.0 ** min(attempt - 1, 10))
    return max(after_s, doubled * (0.5 + 0.5 * jitter))


@dataclass(frozen=True)
class Patience:
    """Bounds on every operation."""

    total_s: float = 30.0
    """From the first attempt to giving up."""

    request_s: float = 10.0
    """For one request, until the server's next byte."""

    clock: Callable[[], float] = time.monotonic
    pause: Callable[[float], object] = field(default_factory=lambda: threading.Event().wait)
    jitter: Callable[[], float] = field(default_factory=lambda: random.SystemRandom().random)

    def tries(self, within_s: float | None = None) -> Tries:
        """Return the attempts of one operation, beginning now; `within_s` shortens them."""
        return Tries(self, self.total_s if within_s is None else min(within_s, self.total_s))


class Tries:
    """The attempts of one operation."""

    def __init__(self, patience: Patience, total_s: float) -> None:
        self._patience, self._total_s = patience, total_s
        self._failed = 0
        self._start = patience.clock()

    @property
    def left_s(self) -> float:
        """How much of the whole time is left."""
        return self._total_s - (self._patience.clock() - self._start)

    @property
    def request_s(self) -> float:
        """How long the next request may take."""
        return max(0.01, min(self._patience.request_s, self.left_s))

    def again(self, problem: Unreachable) -> None:
        """Wait before the next attempt; raise the problem if there is no time for one."""
        self._failed += 1
        pause_s = wait_s(self._failed, after_s=problem.after_s, jitter=self._patience.jitter())
        if pause_s >= self.left_s:
            waited_s = self._patience.clock() - self._start
            raise Unreachable(
                f"{problem}; attempts: {self._failed}, in {waited_s:.1f} s",
                hint=problem.hint,
                after_s=problem.after_s,
                executed=problem.executed,
            ) from problem
        self._patience.pause(pause_s)
