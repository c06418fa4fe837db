"""A skill that regressed is named and blocks; an equal version is named for nothing."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from components.guard import champion
from components.guard.comparison import Pairs
from components.guard.multiplicity import sign_p
from components.steps.verbs import against

SKILLS = [f"skill {n}" for n in range(10)]
MARGIN = 0.015


def items(right: dict[str, float], seed: int, per_skill: int = 200) -> list[dict[str, Any]]:
    """Return what a version answered, right with its skills' chances."""
    drawn = random.Random(seed)
    return [
        {
            "id": f"{skill}-{n}",
            "skill": skill,
            "expected": "x",
            "tokens": 3,
            "correct": drawn.random() < chance,
        }
        for skill, chance in right.items()
        for n in range(per_skill)
    ]


def changed(
    before: list[dict[str, Any]], share: float, seed: int, skill: str = ""
) -> list[dict[str, Any]]:
    """Return a version whose answers change with a chance; of a skill they turn wrong."""
    drawn = random.Random(seed)
    return [
        {
            **item,
            "correct": (item["correct"] and drawn.random() > 0.3)
            if item["skill"] == skill
            else item["correct"] != (drawn.random() < share and drawn.random() < 0.5),
        }
        for item in before
    ]


def test_an_equal_version_is_rarely_named() -> None:
    """Gains as likely as losses: of 2000 such versions at most `ALPHA`, over ten skills, is named.

    One test per skill would name many: ten looks are paid for.
    """
    drawn = np.random.default_rng(7)
    named = unpaid = 0
    for _ in range(2000):
        counts = drawn.multinomial(200, [0.1, 0.1, 0.8], size=len(SKILLS))
        pairs = {
            ("skill", skill): Pairs(200, int(gained), int(lost))
            for skill, (gained, lost, _) in zip(SKILLS, counts, strict=True)
        }
        named += any(each.regressed for each in champion.judge(pairs, MARGIN))
        unpaid += any(sign_p(p.gained, p.lost) <= champion.ALPHA for p in pairs.values())
    assert named <= 2000 * champion.ALPHA
    assert unpaid > 2000 * 0.1


def test_a_poisoned_skill_is_named_though_the_total_gains() -> None:
    before = items({**dict.fromkeys(SKILLS, 0.6), "sums": 0.9}, 1)
    after = [
        {**item, "correct": item["correct"] or item["id"].endswith(("1", "2", "3"))}
        if item["skill"] != "sums"
        else item
        for item in changed(before, 0.0, 2, skill="sums")
    ]
    gained = sum(item["correct"] for item in after) - sum(item["correct"] for item in before)
    assert gained > 0
    told = against(before, after, MARGIN)
    assert told["outcome"] == "fail"
    assert told["reason"].startswith("it lost skill 'sums' (")
    assert told["difference"] > 0
    assert [each["skill"] for each in told["skills"] if each["regressed"]] == ["sums"]
    assert told["skills"][0]["skill"] == "sums"


def test_every_lost_skill_is_named_worst_first() -> None:
    before = items(dict.fromkeys(SKILLS, 1.0), 3)
    worse = changed(before, 0.0, 4, skill="skill 3")
    worst = [{**item, "correct": item["correct"] and item["skill"] != "skill 7"} for item in worse]
    reason = champion.reason(champion.skills(before, worst, MARGIN))
    assert reason.startswith("it lost skills 'skill 7' (200 answers lost, 0 gained of 200) and ")
    assert "'skill 3'" in reason


@pytest.mark.parametrize("lost", [0, 1, 2])
def test_a_few_lost_answers_are_no_regression(lost: int) -> None:
    before = items({"sums": 1.0}, 5)
    after = [{**item, "correct": n >= lost} for n, item in enumerate(before)]
    assert champion.reason(champion.skills(before, after, MARGIN)) == ""


def test_a_trifle_is_none_however_sure() -> None:
    before = items({"sums": 1.0}, 5, per_skill=4000)
    after = [{**item, "correct": n >= 40} for n, item in enumerate(before)]
    (found,) = champion.skills(before, after, MARGIN)
    assert found.adjusted_p < 1e-6
    assert not found.regressed
    (strict,) = champion.skills(before, after, 0.005)
    assert strict.regressed


def test_only_items_that_both_were_asked_are_compared() -> None:
    before, after = items({"sums": 1.0}, 6), items({"sums": 0.0, "new": 0.0}, 6)
    unseen = [{**item, "id": f"other {item['id']}"} for item in after]
    assert champion.skills(before, unseen, MARGIN) == []
    named = [each.skill for each in champion.skills(before, after, MARGIN)]
    assert named == ["sums"], "a skill that the champion was never asked has nothing to lose"
