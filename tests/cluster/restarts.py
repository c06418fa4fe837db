"""When a component that ended is started again, as a node's init or a Deployment would."""

from __future__ import annotations

MOST = 6
WITHIN_S = 120.0
FIRST_S = 1.0


class Restarts:
    """Decides by when components ended; starts nothing itself."""

    def __init__(self) -> None:
        self._ends: dict[str, list[float]] = {}

    def ended(self, name: str, now: float) -> float | None:
        """Note that a component ended; return when to start it again.

        Later each time, since it may need another that is still starting; None when it ended
        `MOST` times within `WITHIN_S`: it is broken, and starting it again would hide that.
        """
        ends = [at for at in self._ends.get(name, []) if now - at < WITHIN_S]
        self._ends[name] = [*ends, now]
        return None if len(ends) + 1 >= MOST else now + FIRST_S * 2.0 ** len(ends)
