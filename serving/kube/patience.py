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


class Tries(Attempts):
    """The attempts of one operation."""

    def __init__(self, patience: Patience, total_s: float) -> None:
        super().__init__(total_s, patience.clock, patience.pause, patience.jitter)
        self._patience = patience

    @property
    def request_s(self) -> float:
        """How long the next request may take, in seconds."""
        return max(0.01, min(self._patience.request_s, self.left_s))
