"""What may be true of a candidate, and of the traffic it meets.

Margins, in one place. A rule is right about a scenario when it promotes a `good` candidate or
rolls back a bad one, so a scenario must lie where that is beyond dispute:

* 16 scenarios lie well inside or well outside the margins of every rule. `ttft30` and
  `ttft30_noisy` are the exception by design: twice the peers' margin, and exactly Penstock's.
* 3 `*_at_margin` and `all_at_eps` lie exactly at the margins of the policy under test, which is
  Penstock's default (`reject` and `tolerate` of `penstock.core.spec.Rollout`, read from there).
  They ask whether its stated error rates hold in the worst case. Peers state no error rates, and
  where the truth is their static threshold they toss a coin; their rows there are not a fault.
* Peers get static thresholds exactly at `PEER_MARGINS` above a baseline they know perfectly, which
  is generous: real ones are guesses.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any

from penstock.core.errors import ConfigurationError, Mistake
from penstock.core.spec import Rollout

ERROR_RATE = 0.005
"""Share of requests the stable version fails."""

QUALITY = 0.70
"""Mean score of the stable version's answers."""

QUALITY_SD = 0.30

PEER_MARGINS = {"error_rate": 0.005, "ttft_p95": 0.15, "tpot_p95": 0.10, "quality": 0.015}
"""Errors and quality in absolute terms, latencies relative to the stable version."""

ENVIRONMENTS = ("iid", "burst", "noisy", "armdrift", "armdrift4")


@dataclass(frozen=True)
class Scenario:
    """One truth about a candidate; the defaults are the stable version's."""

    name: str
    good: bool
    """Whether promoting it is right."""

    rate: float = 20.0
    """Requests per second, of both versions together."""

    err: float = ERROR_RATE
    ttft: float = 1.0
    """Times as slow as the stable version."""

    q: float = QUALITY
    tpot: float = 1.0
    """Times as slow as the stable version."""

    tail: float = 0.0
    """Share of requests whose first token comes 2 s later."""

    env: str = "iid"
    liveonly: bool = False
    """Whether only live requests show the fault: mirrored and replayed prompts find none."""


def _at_the_margins() -> tuple[Scenario, ...]:
    """Return the scenarios at the default policy's own margins."""
    metrics = Rollout().metrics
    error, quality = metrics["error_rate"], metrics["quality"]
    ttft, tpot = metrics["ttft_p95"], metrics["tpot_p95"]
    return (
        Scenario("q_at_margin", good=False, q=QUALITY - quality.reject),
        Scenario("err_at_margin", good=False, err=ERROR_RATE + error.reject),
        Scenario("ttft_at_margin", good=False, ttft=1 + ttft.reject),
        Scenario(
            "all_at_eps",
            good=True,
            err=ERROR_RATE + error.tolerate,
            ttft=1 + ttft.tolerate,
            q=QUALITY - quality.tolerate,
            tpot=1 + tpot.tolerate,
        ),
    )


AT_MARGINS = _at_the_margins()

SCENARIOS: tuple[Scenario, ...] = (
    Scenario("aa", good=True),
    Scenario("err2", good=False, err=0.02),
    Scenario("ttft30", good=False, ttft=1.30),
    Scenario("q3", good=False, q=0.67),
    Scenario("tail", good=False, tail=0.06),
    Scenario("err20", good=False, err=0.20),
    Scenario("better", good=True, err=0.003, ttft=0.9, q=0.72),
    Scenario("aa_1rps", good=True, rate=1.0),
    Scenario("err2_1rps", good=False, rate=1.0, err=0.02),
    Scenario("q3_1rps", good=False, rate=1.0, q=0.67),
    Scenario("aa_burst", good=True, env="burst"),
    Scenario("aa_noisy", good=True, env="noisy"),
    Scenario("ttft30_noisy", good=False, ttft=1.30, env="noisy"),
    Scenario("aa_armdrift", good=True, env="armdrift"),
    Scenario("aa_armdrift4", good=True, env="armdrift4"),
    *AT_MARGINS[:3],
    Scenario("err2_liveonly", good=False, err=0.02, liveonly=True),
    AT_MARGINS[3],
)

_FACTOR = (lambda value: 0.01 <= value <= 100, "a number from 0.01 to 100")
_SHARE = (lambda value: 0 <= value <= 1, "a number from 0 to 1")
_NUMBERS: dict[str, tuple[Callable[[float], bool], str]] = {
    "rate": (lambda value: 0.01 <= value <= 1000, "a number from 0.01 to 1000"),
    "err": _SHARE,
    "ttft": _FACTOR,
    # a Beta distribution with this mean and a deviation of .30 must exist
    "q": (lambda value: 0.11 <= value <= 0.89, "a number from 0.11 to 0.89"),
    "tpot": _FACTOR,
    "tail": _SHARE,
}
_ALLOWED = tuple(field.name for field in fields(Scenario))
_REQUIRED = tuple(field.name for field in fields(Scenario) if field.default is MISSING)


def parse(path: Path) -> tuple[Scenario, ...]:
    """Return the scenarios that a JSON file lists.

    Raises:
        ConfigurationError: The file cannot be read, or says something that no scenario is; names
            what, where, and what is allowed.
    """
    try:
        listed = json.loads(path.read_text())
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ConfigurationError(f"{path}: not readable as JSON: {error}") from error
    if not isinstance(listed, list) or not listed:
        found = "nothing" if listed == [] else type(listed).__name__
        raise _wrong(str(path), found, "a list of scenarios, at least one")
    scenarios: dict[str, Scenario] = {}
    for number, definition in enumerate(listed):
        where = f"{path}[{number}]"
        scenario = _scenario(definition, where)
        if scenario.name in scenarios:
            raise _wrong(f"{where}.name", f"{scenario.name!r} a second time", "every name once")
        scenarios[scenario.name] = scenario
    return tuple(scenarios.values())


def _scenario(definition: Any, where: str) -> Scenario:
    """Return the scenario that one object defines."""
    if not isinstance(definition, dict):
        raise _wrong(where, type(definition).__name__, "an object")
    for key, value in definition.items():
        _check(f"{where}.{key}", key, value)
    for key in _REQUIRED:
        if key not in definition:
            raise _wrong(f"{where}.{key}", "nothing", "required")
    numbers = {key: float(definition[key]) for key in _NUMBERS if key in definition}
    return Scenario(**{**definition, **numbers})


def _check(where: str, key: str, value: Any) -> None:
    """Refuse a field that no scenario has, or a value it cannot have."""
    if key not in _ALLOWED:
        near = difflib.get_close_matches(key, _ALLOWED, n=1)
        raise _wrong(where, "an unknown field", ", ".join(_ALLOWED), *near)
    if key in _NUMBERS:
        fits, allowed = _NUMBERS[key]
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        right = number and fits(value)
    elif key == "name":
        right, allowed = isinstance(value, str) and value != "", "a text that is not empty"
    elif key == "env":
        right, allowed = value in ENVIRONMENTS, ", ".join(ENVIRONMENTS)
    else:
        right, allowed = isinstance(value, bool), "true or false"
    if not right:
        raise _wrong(where, json.dumps(value), allowed)


def _wrong(where: str, found: str, allowed: str, nearest: str = "") -> ConfigurationError:
    """Return the error to raise."""
    return ConfigurationError(str(Mistake(where, found, allowed, nearest)))
