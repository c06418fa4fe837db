"""Scores that come later: which answer they are for, and whether they may count.

A judge, or a user's thumb, scores some answers, minutes after they were given. A score counts once
per answer and metric, for the version that gave it, and only while the split is the one under which
it was given: under other weights, the same number of scores would mean something else.
"""

from __future__ import annotations

import itertools
import re
import secrets
from collections import OrderedDict
from dataclasses import dataclass

from serving.local.split import Split

_METRIC = re.compile(r"[a-z][a-z0-9_]{0,39}")
_MOST_METRICS = 16


@dataclass(slots=True)
class Sent:
    """An answer that can be scored."""

    name: str
    service: str
    split: Split
    half: str = ""
    """Of the version's replicas, set when one was chosen."""

    scored: tuple[str, ...] = ()
    """Metrics; a tuple, since most answers are never scored, and a hundred thousand are kept."""


class Scorebook:
    """Remembers the newest `capacity` answers of this process."""

    def __init__(self, capacity: int = 100_000) -> None:
        self._capacity = capacity
        self._sent: OrderedDict[str, Sent] = OrderedDict()
        self._metrics: dict[str, set[str]] = {}
        self._life, self._count = secrets.token_hex(6), itertools.count(1)

    def enter(self, sent: Sent) -> str:
        """Return the id of an answer that is about to be given."""
        key = f"{self._life}-{next(self._count)}"
        self._sent[key] = sent
        if len(self._sent) > self._capacity:
            self._sent.popitem(last=False)
        return key

    def find(self, key: str) -> Sent | None:
        """Return an answer; None if it was not given here, or too long ago."""
        return self._sent.get(key)

    def claim(self, sent: Sent, metric: str, split: Split | None) -> str:
        """Return why a score does not count; empty, and from now on taken, if it does.

        Args:
            sent: The answer.
            metric: What of it is scored.
            split: In force now.
        """
        if split is not sent.split:
            return "the weights have changed since it was answered"
        if metric in sent.scored:
            return "it was scored already"
        known = self._metrics.setdefault(sent.name, set())
        if metric not in known and len(known) == _MOST_METRICS:
            return f"{sent.name} has {_MOST_METRICS} metrics already: {', '.join(sorted(known))}"
        known.add(metric)
        sent.scored += (metric,)
        return ""


def mistake(metric: object, score: object) -> str:
    """Return what is wrong with a score; empty when nothing is."""
    if not isinstance(metric, str) or not _METRIC.fullmatch(metric):
        return f"metric: lower-case letters, digits and _, at most 40, found {metric!r}"
    if isinstance(score, bool) or not isinstance(score, int | float) or not 0 <= score <= 1:
        return f"score: a number from 0 to 1, found {score!r}"
    return ""
