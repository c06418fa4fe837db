"""Waiting for what other processes do, with an end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from penstock.core.errors import LifecycleError


class TooLate(LifecycleError):
    """Something did not happen in time."""


def pause(seconds: float) -> None:
    """Wait a moment."""
    threading.Event().wait(seconds)


def until(what: str, check: Callable[[], object], seconds: float = 60) -> None:
    """Wait until a check is true.

    Raises:
        TooLate: It never was; the message names what was awaited.
    """
    end = time.monotonic() + seconds
    while not check():
        if time.monotonic() > end:
            raise TooLate(f"waited {seconds:.0f} s in vain: {what}")
        pause(0.1)
