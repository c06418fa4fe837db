"""The verdict about a quantized checkpoint, and the one sentence that says why.

Two errors are bounded, whichever form judges:

* accepting a version that loses the margin or more: `FALSE_ACCEPT`, on the total;
* refusing one that loses nothing: `FALSE_REFUSE`, half of it for the total, half for all slices
  together.

A version that loses something, but less than the margin, may get any of the three answers. The
total is refused only if the loss, besides being significant, is more than a third of the margin
(the spec's own ratio of `tolerate` to `reject`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from components.guard.comparison import Pairs
from components.guard.items import Slice
from components.guard.measures import Measure

Outcome = Literal["accept", "refuse", "insufficient"]
Form = Literal["fixed", "sequential"]

FALSE_ACCEPT = 0.05
FALSE_REFUSE = 0.05
TOLERATED_SHARE = 1 / 3
"""Of the margin: a smaller loss is no reason to refuse."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What the answers say, without the words."""

    outcome: Outcome
    lost: tuple[Slice, ...]
    """Slices that lost; not empty only if refused."""

    adjusted: dict[Slice, float]
    """Holm-adjusted p-value per slice, or the anytime-valid one (1 over the e-value)."""


@dataclass(frozen=True, slots=True)
class SliceResult:
    """How one slice did."""

    kind: str
    name: str
    n: int
    gained: int
    lost: int
    difference: float
    adjusted_p: float
    refused: bool


@dataclass(frozen=True, slots=True)
class Verdict:
    """May the candidate replace its parent?"""

    outcome: Outcome
    reason: str
    """One sentence with its numbers."""

    form: Form
    n: int
    """Items judged."""

    available: int
    """Items there were."""

    gained: int
    lost: int
    difference: float
    """Candidate's share of right answers minus the parent's."""

    low: float
    high: float
    """95 % one-sided bounds of the difference; anytime-valid in the sequential form."""

    margin: float
    smallest_margin: float
    """The smallest loss that these items can exclude."""

    power: float
    """Chance that the total of an equal version, with as many changed answers, is accepted."""

    slices: tuple[SliceResult, ...]
    measures: tuple[Measure, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the fields."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Figures:
    """What a form computes beside the decision."""

    form: Form
    available: int
    low: float
    high: float
    power: float
    advice: str
    """What to do if the items do not suffice."""


def refused_before(measures: Sequence[Measure]) -> tuple[Measure, ...]:
    """Return the measures that refuse by themselves."""
    return tuple(each for each in measures if each.beyond)


def tells_loss(total: Pairs, margin: float) -> bool:
    """Return whether the loss is large enough to be a reason, if it is significant."""
    return -total.difference > margin * TOLERATED_SHARE


def conclude(
    decision: Decision,
    total: Pairs,
    slices: dict[Slice, Pairs],
    *,
    margin: float,
    measures: Sequence[Measure],
    figures: Figures,
) -> Verdict:
    """Return the verdict in words and numbers."""
    beyond = refused_before(measures)
    outcome: Outcome = "refuse" if beyond else decision.outcome
    found = tuple(
        SliceResult(
            *name,
            n=pairs.n,
            gained=pairs.gained,
            lost=pairs.lost,
            difference=pairs.difference,
            adjusted_p=decision.adjusted.get(name, 1.0),
            refused=name in decision.lost,
        )
        for name, pairs in sorted(slices.items(), key=_by_kind_and_size)
    )
    if outcome == "accept":
        reason = f"a loss of more than {-min(figures.low, 0):.2%} is excluded on {total.n} items"
    elif outcome == "refuse":
        reason = "; ".join(_reasons(decision, total, slices, beyond))
    else:
        reason = (
            f"{total.n} items can exclude a loss of {-min(figures.low, 0):.2%}, not of"
            f" {margin:.2%}; an equal version had a chance of {figures.power:.0%} to be accepted"
            f"{figures.advice}"
        )
    return Verdict(
        outcome=outcome,
        reason=reason,
        form=figures.form,
        n=total.n,
        available=figures.available,
        gained=total.gained,
        lost=total.lost,
        difference=total.difference,
        low=figures.low,
        high=figures.high,
        margin=margin,
        smallest_margin=max(0.0, -figures.low),
        power=figures.power,
        slices=found,
        measures=tuple(measures),
    )


def _reasons(
    decision: Decision, total: Pairs, slices: dict[Slice, Pairs], beyond: Sequence[Measure]
) -> list[str]:
    told = [
        f"it lost {kind} {' and '.join(_counts(n, slices[n]) for n in named)}"
        for kind in ("skill", "length")
        if (named := [name for name in decision.lost if name[0] == kind])
    ]
    told += [
        f"{each.name} is {each.value:.3g}, {each.low:.3g} to {each.high:.3g}, beyond the limit of"
        f" {each.limit:g}"
        for each in beyond
    ]
    if not told:
        worst = min(
            (name for name in slices if name[0] == "skill"), key=lambda n: slices[n].difference
        )
        told.append(
            f"it loses {-total.difference:.2%}: {total.lost} answers lost and {total.gained} gained"
            f" of {total.n}; worst is skill {_counts(worst, slices[worst])}"
        )
    return told


def _counts(name: Slice, pairs: Pairs) -> str:
    return f"{name[1]!r} ({pairs.lost} answers lost, {pairs.gained} gained of {pairs.n})"


def _by_kind_and_size(entry: tuple[Slice, Pairs]) -> tuple[int, int, str]:
    (kind, name), _ = entry
    digits = [int(word) for word in name.split() if word.isdigit()] if kind == "length" else []
    return int(kind == "length"), max(digits, default=0), name
