"""How long to try, and how long to wait in between."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from penstock.core.patience import Attempts


@dataclass(frozen=True)
class Patience:
    """Bounds on every operation, in seconds.

    No operation lasts longer than `total_s` and one request more; none waits for a silent server
    longer than `read_s`.
    """

    total_s: float = 120.0
    """From the first attempt to giving up."""

    connect_s: float = 5.0
    """Until a connection stands."""

    read_s: float = 30.0
    """For one answer, until its last byte."""

    settle_s: float = 5.0
    """How long a request whose answer got lost may still be executed by the server: so long it is
    looked for before it is sent again."""

    clock: Callable[[], float] = time.monotonic
    pause: Callable[[float], object] = field(default_factory=lambda: threading.Event().wait)
    jitter: Callable[[], float] = field(default_factory=lambda: random.SystemRandom().random)

    def tries(self) -> Tries:
        """Return the attempts of one operation, beginning now."""
        return Tries(self)


class Tries(Attempts):
    """The attempts of one operation."""

    def __init__(self, patience: Patience) -> None:
        super().__init__(patience.total_s, patience.clock, patience.pause, patience.jitter)
        self._patience = patience

    @property
    def timeouts(self) -> tuple[float, float]:
        """How long the next connection and the next answer may take, in seconds."""
        left_s = max(0.05, self.left_s)
        return min(self._patience.connect_s, left_s), min(self._patience.read_s, left_s)

    def pause(self, wanted_s: float) -> None:
        """Wait, but not beyond the whole time."""
        self._patience.pause(max(0.0, min(wanted_s, self.left_s)))
