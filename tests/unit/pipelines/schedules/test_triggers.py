"""Who may start a schedule from outside, when, and what MLflow's own code signs."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.schedules import Rule, Schedule
from pipelines.schedules.kept import Kept, Tick
from pipelines.schedules.triggers import (
    DELIVERY,
    SIGNATURE,
    TIMESTAMP,
    Event,
    Unsigned,
    asked,
    read,
)

SECRET = "between-us"
NOW = 1_800_000_000.0


def _body(entity: str = "model_version", action: str = "created", **data: object) -> bytes:
    return json.dumps(
        {"entity": entity, "action": action, "data": {"name": "base", **data}}
    ).encode()


def _headers(body: bytes, *, secret: str = SECRET, at: float = NOW) -> dict[str, str]:
    stamp = str(int(at))
    content = b"id-1." + stamp.encode() + b"." + body
    digest = hmac.new(secret.encode(), content, hashlib.sha256).digest()
    signature = f"v1,{base64.b64encode(digest).decode()}"
    return {DELIVERY.lower(): "id-1", TIMESTAMP: stamp, SIGNATURE: signature}


def test_mlflow_signs_as_we_read() -> None:
    from mlflow.webhooks import constants, delivery

    assert (SIGNATURE, TIMESTAMP, DELIVERY) == (
        constants.WEBHOOK_SIGNATURE_HEADER,
        constants.WEBHOOK_TIMESTAMP_HEADER,
        constants.WEBHOOK_DELIVERY_ID_HEADER,
    )
    body = _body(version="3")
    stamp = str(int(NOW))
    theirs = delivery._generate_hmac_signature(SECRET, "id-1", stamp, body.decode())
    assert _headers(body)[SIGNATURE] == theirs
    event = read({**_headers(body), SIGNATURE: theirs}, body, secret=SECRET, now=NOW)
    assert event == Event("version", "base", "3")


def test_reads_events() -> None:
    alias = _body("model_version_alias", alias="stable", version="4")
    assert read(_headers(alias), alias, secret=SECRET, now=NOW) == Event(
        "alias", "base", "4", "stable"
    )
    ours = _body(version="5", tags={"penstock.root": "sha256:1"})
    assert read(_headers(ours), ours, secret=SECRET, now=NOW).ours
    other = _body("registered_model")
    assert read(_headers(other), other, secret=SECRET, now=NOW).kind == "other"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({SIGNATURE: ""}, "not ours"),
        ({SIGNATURE: "v1,AAAA"}, "not ours"),
        ({SIGNATURE: "v1,\u00fc"}, "not ours"),
        ({DELIVERY.lower(): ""}, "not ours"),
        ({TIMESTAMP: str(int(NOW) + 1)}, "not ours"),
    ],
)
def test_refuses_what_is_not_signed(changes: dict[str, str], says: str) -> None:
    body = _body(version="3")
    with pytest.raises(Unsigned, match=says):
        read({**_headers(body), **changes}, body, secret=SECRET, now=NOW)


def test_refuses_another_body_secret_time_and_a_second_delivery() -> None:
    body = _body(version="3")
    with pytest.raises(Unsigned, match="not ours"):
        read(_headers(body), body + b" ", secret=SECRET, now=NOW)
    with pytest.raises(Unsigned, match="not ours"):
        read(_headers(body, secret="other"), body, secret=SECRET, now=NOW)
    for at in (NOW - 301, NOW + 301):
        with pytest.raises(Unsigned, match="a replay"):
            read(_headers(body, at=at), body, secret=SECRET, now=NOW)
    with pytest.raises(Unsigned, match="delivered before"):
        read(_headers(body), body, secret=SECRET, now=NOW, seen={"id-1"})
    with pytest.raises(Unsigned, match="not an event"):
        read(_headers(b"[]"), b"[]", secret=SECRET, now=NOW)


@given(st.binary(max_size=60), st.dictionaries(st.sampled_from([SIGNATURE, DELIVERY]), st.text()))
def test_no_request_breaks_it(body: bytes, headers: dict[str, str]) -> None:
    with pytest.raises(Unsigned):
        read(headers, body, secret=SECRET, now=NOW)


def _kept(*on: str, **changes: object) -> Kept:
    body = {"name": "n", "model": "m", "spec": {}, "when": {"every_s": 60}, "on": list(on)}
    ticks = changes.pop("ticks", ())
    return Kept(Schedule.model_validate({**body, **changes}), 1, ticks)  # type: ignore[arg-type]


VERSION = Event("version", "base", "3")


@pytest.mark.parametrize(
    ("kept", "event", "fires", "says"),
    [
        (_kept("version:base"), VERSION, True, "MLflow: base version 3"),
        (_kept("version:base", paused=True), VERSION, False, "paused"),
        (_kept("version:base"), Event("version", "base", "3", ours=True), False, "Penstock itself"),
        (_kept("alias:base@prod"), Event("alias", "base", "3", "prod"), True, "base@prod"),
        (
            _kept("version:base", ticks=(Tick(at=NOW - 1, because="drift", outcome="done"),)),
            VERSION,
            False,
            "cools down for 599 s",
        ),
        (
            _kept("version:base", ticks=(Tick(at=NOW - 1, because="clock", outcome="done"),)),
            VERSION,
            True,
            "base",
        ),
    ],
)
def test_who_starts(kept: Kept, event: Event, fires: bool, says: str) -> None:
    (answer,) = asked(event, [kept], NOW, {})
    assert (answer.fires, says in answer.why) == (fires, True), answer


def test_what_a_schedule_did_not_ask_for_is_not_its_own() -> None:
    for kept in (_kept(), _kept("version:other"), _kept("alias:base@prod")):
        assert asked(VERSION, [kept], NOW, {}) == []
    (again,) = asked(VERSION, [_kept("version:base")], NOW, {"n": NOW - 10})
    assert not again.fires


def test_a_schedule_does_not_start_itself() -> None:
    for alias in ("champion", "challenger", "previous"):
        with pytest.raises(ValueError, match="every promotion"):
            _kept(f"alias:m@{alias}")
    _kept("alias:m@approved")
    for wrong in ("version:m@x", "alias:m", "drift", "version:"):
        with pytest.raises(ValueError, match="version:NAME, alias:NAME@ALIAS or drift:METRIC"):
            Rule.parse(wrong)
