"""What starts a schedule beside its clock: MLflow's webhooks, and drift. Pure.

A trigger only asks for a look: whether to train, `detect_changes` decides, with the same cool-down
and budget as at any other time.

Webhooks: MLflow 3.17 signs `DELIVERY_ID.TIMESTAMP.BODY` with HMAC-SHA256, as `v1,BASE64`. Source:
mlflow/webhooks/delivery.py and constants.py of that version.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from penstock.core.errors import LifecycleError
from penstock.core.schedules import Rule
from pipelines.schedules.kept import Kept

SIGNATURE, TIMESTAMP, DELIVERY = "X-MLflow-Signature", "X-MLflow-Timestamp", "X-MLflow-Delivery-Id"
TOLERANCE_S = 300.0
"""A request that is older, or from the future, is a replay."""

OURS = "penstock.root"
"""Tag of versions that Penstock registered: a retraining must not start the next one."""


class Unsigned(LifecycleError):
    """A request that nobody with the secret sent, or that was sent before."""


@dataclass(frozen=True, slots=True)
class Event:
    """What MLflow says has happened."""

    kind: str
    """`version` or `alias`; others are `other`."""

    name: str
    version: str = ""
    alias: str = ""
    ours: bool = False

    def __str__(self) -> str:
        at = f"@{self.alias}" if self.alias else ""
        return f"MLflow: {self.name}{at} version {self.version}"


@dataclass(frozen=True, slots=True)
class Asked:
    """What comes of an event for one schedule."""

    schedule: str
    fires: bool
    why: str


def read(
    headers: Mapping[str, str], body: bytes, *, secret: str, now: float, seen: Collection[str] = ()
) -> Event:
    """Return what a request says, if whoever has the secret sent it, now, and once.

    Args:
        headers: Of the request.
        body: As it came.
        secret: Shared with MLflow.
        now: Seconds since the epoch.
        seen: Deliveries that were taken already.

    Raises:
        Unsigned: Otherwise; it does not say how to do better.
    """
    named = {name.lower(): value for name, value in headers.items()}
    delivery, stamp, signature = (
        named.get(name.lower(), "") for name in (DELIVERY, TIMESTAMP, SIGNATURE)
    )
    content = b".".join((delivery.encode(), stamp.encode(), body))
    digest = hmac.new(secret.encode(), content, hashlib.sha256).digest()
    wanted = "v1," + base64.b64encode(digest).decode()
    if not delivery or not hmac.compare_digest(wanted.encode(), signature.encode()):
        raise Unsigned("the signature is not ours")
    if not stamp.isdigit() or abs(now - int(stamp)) > TOLERANCE_S:
        raise Unsigned(f"sent more than {TOLERANCE_S:.0f} s ago: the clocks differ, or a replay")
    if delivery in seen:
        raise Unsigned("delivered before")
    return _event(body)


def asked(
    event: Event, known: Sequence[Kept], now: float, started: Mapping[str, float]
) -> list[Asked]:
    """Return what an event means for every schedule that wants it.

    Args:
        event: What happened.
        known: The schedules.
        now: Seconds since the epoch.
        started: When triggers started them, as far as it is not among their ticks.
    """
    return [
        Asked(kept.schedule.name, False, "Penstock itself registered this version")
        if event.ours
        else may_start(kept, now, started, str(event))
        for kept in known
        if any(_matches(Rule.parse(text), event) for text in kept.schedule.on)
    ]


def may_start(kept: Kept, now: float, started: Mapping[str, float], why: str) -> Asked:
    """Return whether a trigger starts a schedule now.

    Args:
        kept: The schedule.
        now: Seconds since the epoch.
        started: When triggers started them, as far as it is not among their ticks.
        why: What happened, in words.
    """
    name = kept.schedule.name
    if kept.schedule.paused:
        return Asked(name, False, "paused")
    wait_s = cooling(kept, now, started.get(name))
    if wait_s > 0:
        return Asked(name, False, f"cools down for {wait_s:.0f} s more")
    return Asked(name, True, why)


def cooling(kept: Kept, now: float, started: float | None) -> float:
    """Return for how many seconds more no trigger starts a schedule.

    Args:
        kept: The schedule.
        now: Seconds since the epoch.
        started: When a trigger started it, if that is known beside its ticks.
    """
    ticks = [tick.at for tick in kept.ticks if tick.because != "clock"]
    last = max([*ticks, started if started is not None else -math.inf])
    return max(0.0, last + kept.schedule.trigger_cooldown_s - now)


def _matches(rule: Rule, event: Event) -> bool:
    return rule.kind == event.kind and rule.name == event.name and rule.alias == event.alias


def _event(body: bytes) -> Event:
    try:
        said: dict[str, Any] = json.loads(body)
        data: dict[str, Any] = said["data"]
        what = (str(said["entity"]), str(said["action"]))
    except (ValueError, KeyError, TypeError) as problem:
        raise Unsigned(f"signed, but not an event of MLflow: {problem!r}") from problem
    kinds = {
        ("model_version", "created"): "version",
        ("model_version_alias", "created"): "alias",
    }
    return Event(
        kinds.get(what, "other"),
        str(data.get("name", "")),
        str(data.get("version", "")),
        str(data.get("alias", "")),
        OURS in (data.get("tags") or {}),
    )
