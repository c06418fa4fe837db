"""Which skills a new version lost against the champion: paired, on the same items; pure.

In total a version may be as good while one skill is gone. Every skill is tested by itself, exactly
(McNemar's sign test), and Holm's adjustment bounds the chance to name any skill of a version that
loses nothing: `ALPHA`, over all skills together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from components.guard.comparison import Pairs
from components.guard.items import Slice, pair_up, tally
from components.guard.multiplicity import holm, lost_slices, sign_p

ALPHA = 0.025
"""As `verdict.FALSE_REFUSE` shares it: half for the total, half for all slices together."""


@dataclass(frozen=True, slots=True)
class SkillPairs:
    """How one skill did."""

    skill: str
    n: int
    gained: int
    lost: int
    difference: float
    adjusted_p: float
    regressed: bool


def skills(
    champion: Sequence[Mapping[str, Any]], candidate: Sequence[Mapping[str, Any]], margin: float
) -> list[SkillPairs]:
    """Return every skill that both were asked about; those that regressed first, worst first.

    Args:
        champion: The `items` of its evaluation.
        candidate: Those of the new version.
        margin: Share of right answers that a skill may lose, however surely it does.
    """
    slices = tally(pair_up(champion, candidate)).slices
    return judge({name: pairs for name, pairs in slices.items() if name[0] == "skill"}, margin)


def judge(counted: Mapping[Slice, Pairs], margin: float) -> list[SkillPairs]:
    """Return how skills did, from their counts; as `skills`."""
    p_values = holm([sign_p(pairs.gained, pairs.lost) for pairs in counted.values()])
    adjusted = dict(zip(counted, p_values, strict=True))
    lost = lost_slices(counted, adjusted, alpha=ALPHA, margin=margin)
    order = [*lost, *sorted(name for name in counted if name not in lost)]
    return [
        SkillPairs(
            name[1],
            counted[name].n,
            counted[name].gained,
            counted[name].lost,
            counted[name].difference,
            adjusted[name],
            name in lost,
        )
        for name in order
    ]


def reason(found: Sequence[SkillPairs]) -> str:
    """Return the skills that regressed with their numbers; empty where none did."""
    lost = [
        f"{each.skill!r} ({each.lost} answers lost, {each.gained} gained of {each.n})"
        for each in found
        if each.regressed
    ]
    if not lost:
        return ""
    return f"it lost skill{'s' if len(lost) > 1 else ''} {' and '.join(lost)}"


def to_json(found: Sequence[SkillPairs]) -> list[dict[str, Any]]:
    """Return the fields."""
    return [asdict(each) for each in found]
