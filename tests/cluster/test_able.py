"""A machine on which no cluster can run is told so, with everything that is missing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.cluster.able import Machine, missing

FIT = Machine("Linux x86_64", "debian 12", True, (1, 26, 8), "", Path("/srv/penstock"))
COVERED = Path("/tmp/a/b")  # noqa: S108 - nothing is written there


def test_a_fit_machine_lacks_nothing() -> None:
    assert missing(FIT) == []


@pytest.mark.parametrize(
    ("machine", "said"),
    [
        (replace(FIT, kind="Darwin arm64"), "Darwin arm64"),
        (replace(FIT, system="ubuntu 24.04"), "ubuntu 24.04"),
        (replace(FIT, root=False), "root"),
        (replace(FIT, go=()), "found: none"),
        (replace(FIT, go=(1, 9, 9)), "found: 1.9.9"),
        (replace(FIT, namespaces="unshare failed"), "unshare failed"),
        (replace(FIT, checkout=COVERED), str(COVERED)),
    ],
)
def test_one_thing_that_is_missing_is_named(machine: Machine, said: str) -> None:
    (phrase,) = missing(machine)
    assert said in phrase


def test_everything_that_is_missing_is_named_at_once() -> None:
    nothing = Machine("Windows AMD64", "unknown", False, (), "x", COVERED)
    assert len(missing(nothing)) == 6
