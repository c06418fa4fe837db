"""When a pipeline runs by itself: by cron or by interval, in a time zone. Values, no clock.

Cron here is the crontab's: five fields, Sunday is 0 or 7. Libraries disagree about numbers of
weekdays and about days of the month beside days of the week, so days of the week become names and
both at once are refused.
"""

from __future__ import annotations

import difflib
import re
import zoneinfo
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from penstock.core.errors import ConfigurationError
from penstock.core.serving import Part

Recurring = Literal["retrain", "lifecycle", "evaluate"]
"""Pipelines that make sense again and again."""

PARAMETERS: dict[str, tuple[str, ...]] = {
    "retrain": ("cooldown_s", "gpu_hours_per_day", "force"),
    "lifecycle": (),
    "evaluate": ("version",),
}
"""What a schedule may set beside the spec, per pipeline."""

LEAST_S = 10
"""Kubeflow Pipelines looks every ten seconds."""

_DAYS = "sun mon tue wed thu fri sat".split()
_MONTHS = "jan feb mar apr may jun jul aug sep oct nov dec".split()
_FIELDS = (
    ("minute", 0, 59, ()),
    ("hour", 0, 23, ()),
    ("day of the month", 1, 31, ()),
    ("month", 1, 12, tuple(_MONTHS)),
    ("day of the week", 0, 7, tuple(_DAYS)),
)
_ITEM = re.compile(r"(\*|\w+(?:-\w+)?)(?:/(\d+))?")
_RULE = re.compile(r"(version|alias|drift):([^@/:]+)(?:@([\w-]+))?")
_PROMOTING = ("champion", "challenger", "previous")
_SPAN = re.compile(r"(\d+)\s*(s|m|h|d)?")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@dataclass(frozen=True, slots=True)
class Cron:
    """Five fields that mean the same to everybody; `str` is what was written."""

    text: str
    fields: tuple[str, str, str, str, str]
    """Minute, hour, day of the month, month, day of the week by names."""

    def __str__(self) -> str:
        return self.text

    @property
    def six(self) -> str:
        """As Kubeflow Pipelines takes it: seconds first."""
        return " ".join(("0", *self.fields))

    @classmethod
    def parse(cls, text: str) -> Cron:
        """Read five fields; ValueError names the one that is wrong, and what is allowed."""
        parts = text.split()
        if len(parts) != len(_FIELDS):
            raise ValueError(
                f"five fields (minute hour day-of-month month day-of-week), found {len(parts)}; "
                "such as 0 3 * * 1-5"
            )
        read = [_field(part, *field) for part, field in zip(parts, _FIELDS, strict=True)]
        if read[2] != "*" and read[4] != "*":
            raise ValueError("days of the month or days of the week, not both: make two schedules")
        return cls(" ".join(parts), tuple(read))  # type: ignore[arg-type]


class When(Part):
    """A clock: either cron or an interval."""

    cron: str | None = Field(None, description="Minute, hour, day of month, month, day of week.")
    every_s: int | None = Field(None, ge=LEAST_S, description="Seconds between two beginnings.")
    zone: str = Field("UTC", description="Time zone of cron, such as Europe/Paris.")

    @field_validator("cron")
    @classmethod
    def _readable(cls, text: str | None) -> str | None:
        return None if text is None else str(Cron.parse(text))

    @field_validator("zone")
    @classmethod
    def _known(cls, name: str) -> str:
        try:
            zoneinfo.ZoneInfo(name)
        except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
            known = sorted(zoneinfo.available_timezones())
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
            guess = f"; did you mean {near[0]}?" if near else ""
            raise ValueError(
                f"a time zone such as UTC or Europe/Paris; found {name!r}{guess}"
            ) from None
        return name

    @model_validator(mode="after")
    def _one(self) -> When:
        if (self.cron is None) == (self.every_s is None):
            raise ValueError("either a cron line or an interval")
        return self

    def __str__(self) -> str:
        return f"{self.cron} {self.zone}" if self.cron else f"every {_told(self.every_s or 0)}"


@dataclass(frozen=True, slots=True)
class Rule:
    """What starts a schedule beside its clock. `str(Rule.parse(t)) == t`."""

    kind: Literal["version", "alias", "drift"]
    name: str
    """A registered model in MLflow; of `drift`, a metric of the model's rollouts."""

    alias: str = ""

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}" + (f"@{self.alias}" if self.alias else "")

    @classmethod
    def parse(cls, text: str) -> Rule:
        """Read one; ValueError says what is allowed."""
        match = _RULE.fullmatch(text)
        if match is None or (match[1] == "alias") != bool(match[3]):
            raise ValueError(f"version:NAME, alias:NAME@ALIAS or drift:METRIC; found {text!r}")
        kind: Any = match[1]
        return cls(kind, match[2], match[3] or "")


class Schedule(Part):
    """What runs when. The spec is kept whole: a file that goes away changes nothing."""

    name: str = Field(
        pattern=r"^[a-z]([a-z0-9-]{0,48}[a-z0-9])?$",
        description="Lower-case letters, digits and dashes, at most 50.",
    )
    pipeline: Recurring = Field("retrain", description="Which one.")
    model: str = Field(description="Name of the model that the spec describes.")
    spec: dict[str, Any] = Field(description="The document model.yaml.")
    when: When
    parameters: dict[str, str | float | bool] = Field({}, description="Beside the spec.")
    deadline_s: int = Field(6 * 3600, ge=10, description="A run that takes longer is ended.")
    on: list[str] = Field(
        [],
        description="Beside the clock: version:NAME or alias:NAME@ALIAS of MLflow; drift:METRIC "
        "of what users get of the champion.",
    )
    trigger_cooldown_s: int = Field(
        600, ge=0, description="Least time between two starts by triggers."
    )
    paused: bool = False

    @model_validator(mode="after")
    def _allowed(self) -> Schedule:
        allowed = PARAMETERS[self.pipeline]
        for name in self.parameters:
            if name not in allowed:
                raise ValueError(
                    f"parameters of {self.pipeline}: {', '.join(allowed) or 'none'}; found {name}"
                )
        for rule in map(Rule.parse, self.on):
            if rule.kind != "drift" and rule.name == self.model and rule.alias in _PROMOTING:
                raise ValueError(
                    f"an alias that this schedule does not move itself; found {rule}: every "
                    "promotion would start the next training"
                )
        return self


def span(text: str, *, option: str) -> int:
    """Return a duration such as `90`, `90s`, `5m`, `2h` or `1d` in seconds.

    Args:
        text: What was typed.
        option: Where, for the message.
    """
    match = _SPAN.fullmatch(text.strip())
    if match is None:
        raise ConfigurationError(
            f"{option}: found {text!r}; allowed: a number with s, m, h or d, such as 90s or 2h"
        )
    return int(match[1]) * _UNITS[match[2] or "s"]


def _told(seconds: int) -> str:
    for unit, size in reversed(_UNITS.items()):
        if seconds % size == 0 and seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def _field(text: str, name: str, low: int, high: int, names: tuple[str, ...]) -> str:
    found: set[int] = set()
    for item in text.lower().split(","):
        match = _ITEM.fullmatch(item)
        if match is None:
            raise ValueError(f"{name}: found {item!r}; allowed: *, 5, 1-5, */10 or lists of these")
        first, last = _range(match[1], name, low, high, names)
        step = int(match[2] or 1)
        if step < 1:
            raise ValueError(f"{name}: found a step of 0; allowed: 1 or more")
        if match[2] and match[1].isdigit():
            last = high
        found |= set(range(first, last + 1, step))
    if names == tuple(_DAYS):
        days = sorted({day % 7 for day in found})
        return "*" if len(days) == 7 else ",".join(_DAYS[day] for day in days)
    return "*" if found == set(range(low, high + 1)) else ",".join(map(str, sorted(found)))


def _range(text: str, name: str, low: int, high: int, names: tuple[str, ...]) -> tuple[int, int]:
    if text == "*":
        return low, high - (high == 7)
    first, _, last = text.partition("-")
    ends = [_number(each, name, low, high, names) for each in (first, last or first)]
    if ends[0] > ends[1]:
        raise ValueError(f"{name}: found {text}; allowed: a range that rises")
    return ends[0], ends[1]


def _number(text: str, name: str, low: int, high: int, names: tuple[str, ...]) -> int:
    if text in names:
        return names.index(text) + low
    if not text.isdigit() or not low <= int(text) <= high:
        spelt = f" or {names[0]} to {names[-1]}" if names else ""
        raise ValueError(f"{name}: found {text}; allowed: {low} to {high}{spelt}")
    return int(text)
