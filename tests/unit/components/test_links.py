from __future__ import annotations

from typing import Any

import pytest

from components.steps.links import tracked


@pytest.mark.parametrize(
    ("detail", "place"),
    [
        ({"tracking_run": "abc", "version": 3}, "/#/runs/abc"),
        ({"version": 3}, "/#/models/a%20b/versions/3"),
        ({"champion": 7}, "/#/models/a%20b/versions/7"),
        ({"champion": None}, None),
        ({}, None),
    ],
)
def test_what_a_step_is_about_has_an_address(detail: dict[str, Any], place: str | None) -> None:
    found = tracked("https://mlflow.example/team/", "a b", detail)
    assert found == (f"https://mlflow.example/team{place}" if place else "")


@pytest.mark.parametrize(
    "uri", ["", "sqlite:////home/mlflow.db", "postgresql://u@h/d", "file:///x"]
)
def test_a_database_has_no_pages(uri: str) -> None:
    assert tracked(uri, "m", {"version": 1}) == ""


def test_no_password_is_shown() -> None:
    found = tracked("http://me:secret@mlflow:5000?token=hidden", "m", {"version": 1})
    assert found == "http://mlflow:5000/#/models/m/versions/1"
