"""Time for clients of the double: it passes when they wait, and only then."""

from __future__ import annotations

from pipelines.submission.patience import Patience


class FakedTime:
    """A clock that pauses move."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def pause(self, seconds: float) -> None:
        """Let time pass at once."""
        self.now_s += seconds

    def patience(self, *, total_s: float = 30.0, read_s: float = 5.0) -> Patience:
        """Return bounds in this time; `read_s` is real: sockets know no other."""
        return Patience(
            total_s=total_s,
            read_s=read_s,
            clock=lambda: self.now_s,
            pause=self.pause,
            jitter=lambda: 0.5,
        )
