"""A job that nobody follows any more ends by itself; one that is taken up again does not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from components.training.node import Followed
from penstock.core.errors import TrainingFailed


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_it_goes_on_while_somebody_follows_and_not_for_ever_without(tmp_path: Path) -> None:
    path, clock = tmp_path / "followed", Clock()
    path.touch()
    followed = Followed(path, clock)
    for number in range(1, 100):
        clock.now += 60.0
        os.utime(path, ns=(number, number))
        followed.check()
    clock.now += 29 * 60
    followed.check()
    os.utime(path, ns=(7, 7))  # taken up again
    followed.check()
    clock.now += 31 * 60
    with pytest.raises(TrainingFailed, match="nobody has followed this job for 31 minutes"):
        followed.check()


def test_one_that_nobody_began_to_follow_ends_too(tmp_path: Path) -> None:
    clock = Clock()
    followed = Followed(tmp_path / "followed", clock)
    clock.now += 31 * 60
    with pytest.raises(TrainingFailed):
        followed.check()
