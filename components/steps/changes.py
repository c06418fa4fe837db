"""Whether a model should be trained again, and why: pure.

What its champion was made from stands in the champion's passport; what it would be made from now is
compared with that, part by part. Then come the reasons not to: somebody is at it, the same was
refused before, it is too soon, or too much was spent.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from registry.passport import Inputs, Passport

DAY_S = 86_400.0
_SHORT = 19
"""Characters of a digest that people are shown: `sha256:` and twelve digits."""

Outcome = Literal["changed", "no change", "busy", "refused before", "cooling down", "over budget"]


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that is new."""

    what: str
    """`base`, `data.train`, `strategy`, `code`, `image`; `first` or `origin` for a beginning."""

    told: str


@dataclass(frozen=True, slots=True)
class Attempt:
    """An earlier retraining. Times are seconds since the epoch."""

    inputs: str
    """Digest of what it was made from."""

    run_id: str
    began_at: float
    outcome: str = ""
    """As the run ended: `done`, `refused`, `failed`, `interrupted`; empty: it did not say."""

    reason: str = ""
    gpu_hours: float = 0.0


@dataclass(frozen=True, slots=True)
class Place:
    """What goes on where the model is served."""

    rollout: str = ""
    """The candidate of a rollout that is not over."""

    holder: str = ""
    """Who looks after it."""


@dataclass(frozen=True, slots=True)
class Limits:
    """When not to train although something is new."""

    cooldown_s: float = 0.0
    """Least time between the beginnings of two attempts."""

    gpu_hours_per_day: float = 0.0
    """0: no limit."""

    force: bool = False
    """Train although nothing is new, or the same was refused; the rest still holds."""


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer."""

    outcome: Outcome
    reason: str

    @property
    def go(self) -> bool:
        """Whether to train."""
        return self.outcome == "changed"


def changes(champion: Passport | None, now: Inputs) -> tuple[Change, ...]:
    """Return what is new, by name; empty when a training would only repeat the champion.

    Args:
        champion: Of the version that is served as champion; None when there is none.
        now: What a training would start from.
    """
    if champion is None:
        return (Change("first", "there is no champion yet"),)
    before = champion.inputs
    if before is None:
        return (Change("origin", "the champion was not trained from data.train"),)
    found = _data(before.data, now.data)
    for what, old, new in (
        ("base", before.base, now.base),
        ("strategy", before.strategy, now.strategy),
        ("code", before.code, now.code),
        ("image", before.image, now.image),
    ):
        if old != new:
            found.append(Change(what, f"{_short(old) or 'nothing'} → {_short(new) or 'nothing'}"))
    return tuple(found)


def decide(
    found: Sequence[Change],
    inputs: Inputs,
    past: Sequence[Attempt],
    place: Place,
    limits: Limits,
    now: float,
) -> Decision:
    """Return whether to train now.

    An attempt that was killed says no end: with the same inputs it is resumed, at once.

    Args:
        found: What is new.
        inputs: What a training would start from.
        past: Earlier attempts, the oldest first.
        place: What goes on where it is served.
        limits: When not to.
        now: Seconds since the epoch.
    """
    last = past[-1] if past else None
    unfinished = last is not None and last.outcome in ("", "interrupted")
    resumes = last is not None and unfinished and last.inputs == inputs.digest
    busy = _busy(place, resumes=resumes)
    if busy:
        return Decision("busy", busy)
    if not found and not limits.force:
        return Decision("no change", "base, data, strategy, code and image are the champion's")
    if resumes and last is not None:
        return Decision("changed", f"resumes run {last.run_id}: {told(found)}")
    return _not_now(inputs, past, limits, now, told(found)) or Decision("changed", told(found))


def _not_now(
    inputs: Inputs, past: Sequence[Attempt], limits: Limits, now: float, new: str
) -> Decision | None:
    refused = [a for a in past if a.inputs == inputs.digest and a.outcome == "refused"]
    if refused and not limits.force:
        return Decision("refused before", f"the same was tried in run {_told(refused[-1])}")
    ended = [a.began_at for a in past if a.outcome]
    wait_s = max(ended, default=0.0) + limits.cooldown_s - now
    if ended and wait_s > 0:
        moment = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now + wait_s))
        return Decision("cooling down", f"until {moment}; then: {new}")
    spent = sum(a.gpu_hours for a in past if now - a.began_at < DAY_S)
    if 0 < limits.gpu_hours_per_day <= spent:
        allowed = f"{limits.gpu_hours_per_day:g} GPU-hours a day are allowed"
        return Decision("over budget", f"{spent:.2f} GPU-hours in the last day, {allowed}")
    return None


def told(found: Sequence[Change]) -> str:
    """Return what is new as one line."""
    return "; ".join(f"{c.what}: {c.told}" for c in found) or "forced, nothing is new"


def _busy(place: Place, *, resumes: bool) -> str:
    if place.holder and place.rollout:
        return f"a rollout of {place.rollout} goes on, {place.holder} looks after it"
    if place.rollout and not resumes:
        return (
            f"a rollout of {place.rollout} goes on, and nobody looks after it: "
            "penstock controller does"
        )
    return ""


def _data(before: Mapping[str, str], now: Mapping[str, str]) -> list[Change]:
    found = []
    for name in sorted({*before, *now}):
        old, new = before.get(name, ""), now.get(name, "")
        if old != new:
            told = f"{_short(old) or 'nothing'} → {_short(new) or 'nothing'}"
            found.append(Change(f"data.{name}", told))
    return found


def _told(attempt: Attempt) -> str:
    return f"{attempt.run_id}: {attempt.reason}"


def _short(text: str) -> str:
    if text.startswith("sha256:"):
        return text[:_SHORT]
    head, at, revision = text.rpartition("@")
    return f"{head}@{revision[:12]}" if at and "/" in head else text
