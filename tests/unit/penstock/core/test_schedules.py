"""Cron as a crontab means it, whoever reads it; and what no schedule may say."""

from __future__ import annotations

import re

import pytest
from pydantic import ValidationError

from penstock.core.errors import ConfigurationError
from penstock.core.schedules import Cron, Schedule, When, span


@pytest.mark.parametrize(
    ("text", "six"),
    [
        ("0 3 * * *", "0 0 3 * * *"),
        ("*/20 * * * *", "0 0,20,40 * * * *"),
        ("0 3 * * 1-5", "0 0 3 * * mon,tue,wed,thu,fri"),
        ("0 3 * * 0", "0 0 3 * * sun"),
        ("0 3 * * 7", "0 0 3 * * sun"),
        ("0 3 * * 5-7", "0 0 3 * * sun,fri,sat"),
        ("0 3 * * SUN,wed", "0 0 3 * * sun,wed"),
        ("0 3 * * */2", "0 0 3 * * sun,tue,thu,sat"),
        ("0 3 * * 0-6", "0 0 3 * * *"),
        ("0 0 1 jan *", "0 0 0 1 1 *"),
        ("5/30 10-14/2 * * *", "0 5,35 10,12,14 * * *"),
    ],
)
def test_reads_what_a_crontab_means(text: str, six: str) -> None:
    assert Cron.parse(text).six == six


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("* * * *", "five fields"),
        ("0 0 0 3 * * *", "found 7"),
        ("60 * * * *", "minute: found 60; allowed: 0 to 59"),
        ("* 24 * * *", "hour: found 24"),
        ("* * 0 * *", "day of the month: found 0"),
        ("* * * 13 *", "month: found 13; allowed: 1 to 12 or jan to dec"),
        ("* * * * 8", "day of the week: found 8"),
        ("* * * * tues", "day of the week: found tues"),
        ("5-1 * * * *", "a range that rises"),
        ("*/0 * * * *", "a step of 0"),
        ("? * * * *", "minute: found '?'"),
        ("@daily", "found 1"),
        ("0 0 1 * 1", "not both"),
    ],
)
def test_says_which_field_is_wrong(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=re.escape(says)):
        Cron.parse(text)


def test_a_clock_is_one_of_two() -> None:
    for wrong in ({}, {"cron": "* * * * *", "every_s": 60}, {"every_s": 9}):
        with pytest.raises(ValidationError):
            When.model_validate(wrong)
    with pytest.raises(ValidationError, match="did you mean Europe/Berlin"):
        When(cron="* * * * *", zone="Europe/Berln")
    assert str(When(every_s=7200)) == "every 2 h"


def test_parameters_belong_to_the_pipeline() -> None:
    body = {"name": "n", "model": "m", "spec": {}, "when": {"every_s": 60}}
    Schedule.model_validate({**body, "parameters": {"cooldown_s": 1.0}})
    for wrong in (
        {"parameters": {"cooldown": 1}},
        {"pipeline": "lifecycle", "parameters": {"cooldown_s": 1}},
        {"pipeline": "rollback"},
        {"name": "Upper"},
    ):
        with pytest.raises(ValidationError):
            Schedule.model_validate({**body, **wrong})


def test_spans() -> None:
    assert [span(t, option="--every") for t in ("90", "90s", "5m", "2h", "1d")] == [
        *(90, 90, 300, 7200, 86400)
    ]
    for wrong in ("", "5 weeks", "-1s", "1.5h"):
        with pytest.raises(ConfigurationError, match="--every"):
            span(wrong, option="--every")
