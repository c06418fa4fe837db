from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.spec import Margins, Rollout
from serving.rollout.evidence import SCORE_STEPS, Arm, Batch, Ints
from serving.rollout.judge import Judge
from serving.rollout.matching import MOST_WAITING, NOBODY, match
from serving.rollout.record import Record, first_record

STEPS = SCORE_STEPS + 1
COUNTS = st.dictionaries(st.integers(0, SCORE_STEPS), st.integers(1, 4), max_size=6).map(
    lambda found: np.bincount(
        np.repeat(list(found), list(found.values())).astype(np.int64), minlength=STEPS
    )
)
HELPFUL = Margins(kind="score", tolerate=0.02, reject=0.10, prove_in=["live"])
JUDGE = Judge(Rollout(metrics={"helpful": HELPFUL}, proof=[1]))


@given(st.lists(st.tuples(COUNTS, COUNTS), max_size=8))
def test_every_score_is_paired_once_or_waits(arrivals: list[tuple[Ints, Ints]]) -> None:
    waiting, paired = NOBODY, [np.zeros(STEPS, dtype=np.int64)] * 2
    for salt, (candidate, stable) in enumerate(arrivals):
        pairs, waiting = match(waiting, candidate, stable, salt)
        assert min(map(len, waiting)) == 0
        paired = [
            total + np.bincount(pairs[:, side], minlength=STEPS)
            for side, total in enumerate(paired)
        ]
    for side, total in enumerate(paired):
        arrived = sum((each[side] for each in arrivals), np.zeros(STEPS, dtype=np.int64))
        if arrived.sum() - total.sum() < MOST_WAITING:
            assert (total + np.bincount(waiting[side], minlength=STEPS) == arrived).all()


def test_who_waits_too_long_is_forgotten_the_oldest_first() -> None:
    old, new = np.zeros(STEPS, dtype=np.int64), np.zeros(STEPS, dtype=np.int64)
    old[10], new[20] = 150, 150
    _, waiting = match(NOBODY, old, np.zeros_like(old), 0)
    _, waiting = match(waiting, new, np.zeros_like(old), 1)
    assert np.bincount(waiting[0])[[10, 20]].tolist() == [MOST_WAITING - 150, 150]


def _verdict(seed: int, worth: float) -> tuple[bool, bool]:
    """Score few of the candidate's answers and most of the stable version's; equal at 0.9."""
    rng, evidence = np.random.default_rng(seed), JUDGE.start()
    for _ in range(150):
        arms = []
        for mean, count in ((worth, rng.integers(0, 3)), (0.9, rng.integers(0, 30))):
            good = int((rng.random(count) < mean).sum())
            scores = np.zeros(STEPS, dtype=np.int64)
            scores[[0, SCORE_STEPS]] = count - good, good
            arms.append(Arm(scores={"helpful": scores}))
        evidence = JUDGE.add(evidence, Batch(candidate=arms[0], stable=arms[1]), 50)
        verdict = JUDGE.verdict(evidence)
        if JUDGE.guilty(verdict):
            return True, False
    return False, not JUDGE.unproven(verdict, "live", 1)


def test_how_many_were_scored_of_either_version_accuses_nobody() -> None:
    accused, proven = np.array([_verdict(seed, 0.9) for seed in range(60)]).mean(axis=0)
    assert accused <= 0.02
    assert proven > 0.3


def test_a_version_whose_answers_are_worth_less_is_accused() -> None:
    assert all(_verdict(seed, 0.5)[0] for seed in range(10))


def test_who_waits_survives_a_restart() -> None:
    scores = np.zeros(STEPS, dtype=np.int64)
    scores[[3, 7]] = 2, 1
    batch = Batch(candidate=Arm(scores={"helpful": scores}))
    evidence = JUDGE.add(JUDGE.start(), batch, 50)
    record = replace(first_record("m-v2", "m-v1", JUDGE.policy, 0.0), evidence=evidence)
    again = Record.from_json(record.to_json())
    assert sorted(again.evidence.waiting["helpful"][0].tolist()) == [3, 3, 7]
    assert again.to_json() == record.to_json()
