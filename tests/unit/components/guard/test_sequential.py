from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import pytest

from components.guard.comparison import Pairs
from components.guard.items import Judged, tally
from components.guard.measures import Measure
from components.guard.multiplicity import counts, loss_evidence, safety_evidence
from components.guard.sequential import bounds, decide, judge_as_answered, power, shuffled
from components.guard.verdict import FALSE_ACCEPT, Verdict
from serving.rollout.evidence import Ints
from tests.unit.components.guard.test_fixed import answered


class Asked:
    """Answers from a table, and remembers what it was asked."""

    def __init__(self, items: Sequence[Judged]) -> None:
        self.table = {item.identity: item for item in items}
        self.batches: list[list[str]] = []

    def __call__(self, identities: Sequence[str]) -> list[Judged]:
        self.batches.append(list(identities))
        return [self.table[identity] for identity in identities]

    def judge(self, *measures: Measure, margin: float = 0.015) -> Verdict:
        return judge_as_answered(list(self.table), self, margin=margin, measures=measures)


def test_a_broken_version_is_refused_early() -> None:
    asked = Asked(answered(1000, lost=600) + answered(1000, skill="sort"))
    found = asked.judge()
    assert found.outcome == "refuse"
    assert found.form == "sequential"
    assert found.n == sum(map(len, asked.batches)) <= 60
    assert found.available == 2000
    assert found.high < 0
    assert "'add'" in found.reason


def test_an_equal_version_is_accepted_before_the_end() -> None:
    asked = Asked(answered(2000, lost=3, gained=3))
    found = asked.judge()
    assert found.outcome == "accept"
    assert found.n < 800
    assert found.smallest_margin <= 0.015
    assert found.power > 0.9


def test_a_lost_skill_is_named_although_the_total_does_not_move() -> None:
    asked = Asked(answered(300, gained=90) + answered(100, lost=90, skill="table"))
    found = asked.judge(margin=0.05)
    assert found.outcome == "refuse"
    assert "it lost skill 'table'" in found.reason


def test_when_the_items_end_first_they_were_insufficient() -> None:
    asked = Asked(answered(93))
    found = asked.judge()
    assert (found.outcome, found.n) == ("insufficient", 93)
    assert [len(batch) for batch in asked.batches] == [5] * 18 + [3]
    assert found.power == 0.0
    assert found.reason.endswith("to be accepted, and there are no more")


def test_no_items_are_insufficient() -> None:
    assert Asked([]).judge().outcome == "insufficient"


def test_nothing_is_asked_when_a_measure_refuses() -> None:
    asked = Asked(answered(2000))
    found = asked.judge(Measure("mean KL", 2.0, 1.8, 2.2, 0.15, beyond=True))
    assert (found.outcome, found.n, asked.batches) == ("refuse", 0, [])


def test_the_order_depends_on_seed_and_ids_alone() -> None:
    names = [f"item-{k}" for k in range(50)]
    assert shuffled(names, 1) == shuffled(names[::-1], 1) != shuffled(names, 2)
    assert sorted(shuffled(names, 1)) == sorted(names)
    assert shuffled(["a", "b", "c", "d"], 0) == ["b", "a", "c", "d"]


def chance_of_ever(evidence: float, table: Sequence[float], *, looks: int, batch: int) -> float:
    """Return the exact chance of ever reaching `evidence`, with loss and gain chances `table`.

    Runs over every count of (lost, gained) that was not stopped yet.
    """
    gain, loss, margin = table
    alive = {(0, 0): 1.0}
    stopped = 0.0
    for look in range(1, looks + 1):
        for _ in range(batch):
            after: dict[tuple[int, int], float] = {}
            for (b, g), chance in alive.items():
                for key, p in (((b + 1, g), loss), ((b, g + 1), gain), ((b, g), 1 - loss - gain)):
                    after[key] = after.get(key, 0.0) + chance * p
            alive = after
        keys = list(alive)
        seen = counts([Pairs(look * batch, g, b) for b, g in keys])
        told = _against(seen, margin)
        for key, log in zip(keys, told, strict=True):
            if log >= evidence:
                stopped += alive.pop(key)
    return stopped


def _against(seen: Ints, margin: float) -> list[float]:
    return safety_evidence(seen, Fraction(str(margin))) if margin else loss_evidence(seen)


@pytest.mark.parametrize(
    "table", [(0.0, 0.2, 0.2), (0.05, 0.25, 0.2), (0.2, 0.2, 0.0), (0.4, 0.4, 0.0)]
)
def test_looking_after_every_batch_errs_at_most_as_promised(
    table: tuple[float, float, float],
) -> None:
    """Exact, at the edge of each null: the margin is lost; gains and losses are as likely."""
    wrong = chance_of_ever(-math.log(FALSE_ACCEPT), table, looks=20, batch=3)
    assert 0.002 < wrong <= FALSE_ACCEPT


def test_bounds_hold_the_difference_and_mirror() -> None:
    for pairs in (Pairs(400, 3, 40), Pairs(400, 0, 0), Pairs(400, 30, 30), Pairs(0, 0, 0)):
        low, high = bounds(pairs)
        assert -1 <= low <= pairs.difference <= high <= 1
        assert bounds(Pairs(pairs.n, pairs.lost, pairs.gained)) == (-high, -low)
    assert bounds(Pairs(400, 3, 40))[1] < 0


def test_the_smallest_margin_is_where_it_starts_to_accept() -> None:
    items = tally(answered(600, lost=4, gained=4))
    low, _ = bounds(items.total)
    assert decide(items, -low).outcome == "accept"
    assert decide(items, round(-low - 1e-4, 6)).outcome == "insufficient"


def test_power_rises_with_items_and_falls_with_changes() -> None:
    seen = Pairs(500, 5, 5)
    few, many = power(300, seen, 0.015), power(2000, seen, 0.015)
    assert few < 0.3
    assert many > 0.8
    assert power(2000, Pairs(500, 40, 40), 0.015) < many


def test_evidence_is_whole_numbers_so_order_does_not_matter() -> None:
    items = answered(300, lost=9, gained=4)
    shuffled_items = [items[k] for k in np.random.default_rng(0).permutation(300)]
    assert decide(tally(items), 0.015) == decide(tally(shuffled_items), 0.015)
