"""One thing that was looked at, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from penstock.core.errors import ConfigurationError


class Check(NamedTuple):
    """What was found of one thing."""

    name: str
    ok: bool
    found: str
    hint: str = ""
    """What to do where it is not ok."""


def refuse(checks: Iterable[Check]) -> None:
    """Raise the first thing that is wrong, with its fix."""
    for check in checks:
        if not check.ok:
            raise ConfigurationError(f"{check.name}: {check.found}", hint=check.hint)
