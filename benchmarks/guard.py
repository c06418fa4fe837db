"""Error rates and cost of the quantization guard: `python -m benchmarks.guard [--out DIR]`.

Simulates on recorded answers of the skills model and of rounded versions of it (see
`benchmarks.guard_items`). A path draws items with replacement from a population made of one
recorded version:

* `equal`: every recorded change goes either way with chance 1/2, so that nothing is lost, in no
  slice, and as many answers change as did;
* `drop N`: recorded gains as they were, recorded losses as often as makes the loss exactly N
  points; they fall on the skills that the rounding really hurt;
* `drop N of M`: the same, and so many gains that M points of the answers change;
* `recorded`: as it was.

Items of the fixed test: the number that the fixed form needs to give the right verdict with the
same chance as the sequential form, found by bisection with the same simulation, the loss known. The
sequential form may ask for as many items as it takes to reach that chance; what it uses is the mean
over paths, those that never decide included. A further column compares with a fixed test that was
sized, as it has to be, before anybody knew the loss: for 2 points, with the same chance.

Wald's ratio is the best that any sequential test can do that knows the loss beforehand and has the
errors of the total's test (FALSE_REFUSE/2, and 1 - chance), where changes are many: Wald and
Wolfowitz, Annals of Mathematical Statistics 19 (1948), and the normal approximation of both sizes.
At a chance of 80 % it is above the goal, so that no test could reach it there; `PLANNED` is the
chance for which the fixed form itself says how many items it needs.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.guard_items import RECORDED
from components.guard import fixed, sequential
from components.guard.comparison import Pairs
from components.guard.items import NOTHING, Slice, Tally, bucket
from components.guard.multiplicity import loss_evidence, safety_evidence
from components.guard.verdict import FALSE_ACCEPT, FALSE_REFUSE, Decision, Outcome

REPS, SEED, SUITE = 2000, 11, 2100
MARGIN = 0.015
"""The default of the spec's `evaluation.max_quality_loss`."""

LONGEST = 12_000
"""Items after which a path gives up."""

STRETCHES = (200, 800, 3000, LONGEST)
"""A path is drawn up to each of these, if it has not ended before."""

CHANCES = (0.80, 0.90, 0.95, 0.99)
PLANNED = fixed.WANTED_POWER
SIZED_FOR = "int3-row, drop 2"
"""The loss for which somebody would size a fixed test who does not know yet how bad it is."""

GOAL_ERRORS, GOAL_ITEMS = 0.05, 0.60

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Population:
    """Kinds of items, each with its chance; a kind is a skill, a length bucket and a change."""

    name: str
    chances: Floats
    names: tuple[Slice, ...]
    counts: Ints
    """(kinds, 1 + slices, 3): what one item of a kind adds to (n, gained, lost), total first."""

    def draw(self, sizes: list[int], generator: np.random.Generator) -> Ints:
        """Return what was counted at every look of one path: (looks, 1 + slices, 3)."""
        kinds = generator.multinomial(sizes, self.chances)
        return np.tensordot(kinds.cumsum(axis=0), self.counts, axes=1)

    def tally(self, counted: Ints) -> Tally:
        """Return one look as the guard sees it."""
        total, *slices = (Pairs(*map(int, row)) for row in counted)
        return Tally(total, {n: p for n, p in zip(self.names, slices, strict=True) if p.n})


def population(version: str, change: str) -> Population:
    """Return a population made of a recorded version; see the module."""
    recorded = json.loads(RECORDED.read_text())
    rows = zip(
        recorded["skills"],
        map(bucket, recorded["tokens"]),
        (
            int(new) - int(old)
            for old, new in zip(
                recorded["right"]["parent"], recorded["right"][version], strict=True
            )
        ),
        strict=True,
    )
    weights: dict[tuple[str, str, int], float] = {}
    seen = list(rows)
    share = {sign: sum(r[2] == sign for r in seen) / len(seen) for sign in (-1, 0, 1)}
    for skill, length, sign in seen:
        for into, weight in _turned(sign, change, share):
            key = (skill, length, into)
            weights[key] = weights.get(key, 0.0) + weight / len(seen)
    return _population(f"{version}, {change}", weights)


def _turned(sign: int, change: str, share: dict[int, float]) -> list[tuple[int, float]]:
    """Return what a recorded change becomes, with weights."""
    if change == "equal" and sign:
        return [(-1, 0.5), (1, 0.5)]
    if change.startswith("drop"):
        drop, *changed = (float(word) / 100 for word in change.split()[1::2])
        gained = (changed[0] - drop) / 2 if changed else share[1]
        wanted = {-1: gained + drop, 0: 1 - 2 * gained - drop, 1: gained}
        return [(sign, wanted[sign] / share[sign])]
    return [(sign, 1.0)]


def _population(name: str, weights: dict[tuple[str, str, int], float]) -> Population:
    kinds = sorted(weights)
    names = sorted({s for k in kinds for s in (("skill", k[0]), ("length", k[1]))})
    counts = np.zeros((len(kinds), 1 + len(names), 3), dtype=np.int64)
    for row, (skill, length, sign) in enumerate(kinds):
        for column in (0, 1 + names.index(("skill", skill)), 1 + names.index(("length", length))):
            counts[row, column] = 1, sign == 1, sign == -1
    chances = np.array([weights[kind] for kind in kinds])
    return Population(name, chances / chances.sum(), tuple(names), counts)


def sequential_paths(
    drawn: Population, *, margin: float, most: int, reps: int
) -> list[tuple[int, Decision]]:
    """Return per path how many items it used, and its decision."""
    generator = np.random.default_rng(SEED)
    return [_path(drawn, margin, most, generator) for _ in range(reps)]


def _path(
    drawn: Population, margin: float, most: int, generator: np.random.Generator
) -> tuple[int, Decision]:
    decision = sequential.decide(NOTHING, margin)
    before: Ints = np.zeros_like(drawn.counts[0])
    for begin, end in zip((0, *STRETCHES), STRETCHES, strict=False):
        steps = range(begin, min(end, most), sequential.BATCH)
        if not steps:
            break
        sizes = [min(sequential.BATCH, most - n) for n in steps]
        looks = before + drawn.draw(sizes, generator)
        for counted in looks[may_decide(looks, margin)]:
            decision = sequential.decide(drawn.tally(counted), margin)
            if decision.outcome != "insufficient":
                return int(counted[0, 0]), decision
        before = looks[-1]
    return int(before[0, 0]), decision


def may_decide(looks: Ints, margin: float) -> NDArray[np.bool_]:
    """Return at which looks some evidence is nearly enough; at the others there is no verdict.

    Saves most calls of `sequential.decide`. Evidence of loss counts from one nat below what Ville's
    inequality asks for: more than the exact chances gain.
    """
    signs = looks[..., [2, 0, 1]]
    signs[..., 1] -= looks[..., 1] + looks[..., 2]
    safe = np.array(safety_evidence(signs[:, 0], Fraction(str(margin)))) >= -math.log(FALSE_ACCEPT)
    loss = np.array(loss_evidence(signs.reshape(-1, 3))).reshape(signs.shape[:2])
    near: NDArray[np.bool_] = safe | (loss >= -math.log(FALSE_REFUSE / 2) - 1).any(axis=1)
    return near


def fixed_outcomes(drawn: Population, *, margin: float, items: int, reps: int) -> list[Decision]:
    """Return the decision of every path on so many items."""
    generator = np.random.default_rng(SEED)
    return [
        fixed.decide(drawn.tally(drawn.draw([items], generator)[0]), margin) for _ in range(reps)
    ]


def share(decisions: list[Decision], outcome: Outcome) -> float:
    """Return how often an outcome came."""
    return sum(d.outcome == outcome for d in decisions) / len(decisions)


def errors(reps: int) -> list[dict[str, Any]]:
    """Return the shares of wrong verdicts on as many items as the suite has."""
    cases: list[tuple[str, str, float, Outcome]] = []
    for version in ("int4-row", "int3-row", "int2-g32"):
        cases += [
            (version, "drop 2", MARGIN, "accept"),
            (version, "drop 2", 0.02, "accept"),
            (version, "equal", MARGIN, "refuse"),
        ]
    found = []
    for version, change, margin, wrong in cases:
        drawn = population(version, change)
        once = fixed_outcomes(drawn, margin=margin, items=SUITE, reps=reps)
        paths = sequential_paths(drawn, margin=margin, most=SUITE, reps=reps)
        row = {
            "population": drawn.name,
            "margin": margin,
            "wrong": wrong,
            "fixed": share(once, wrong),
            "sequential": share([d for _, d in paths], wrong),
        }
        found.append(row)
        print(row, flush=True)
    return found


def costs(reps: int) -> list[dict[str, Any]]:
    """Return how many items both forms need for the same chance of the right verdict."""
    cases: list[tuple[str, str, Outcome]] = [
        ("int3-row", "drop 2", "refuse"),
        ("int3-row", "drop 3", "refuse"),
        ("int3-row", "drop 5", "refuse"),
        ("int2-g32", "drop 2", "refuse"),
        ("int2-g32", "recorded", "refuse"),
        ("forgetful", "recorded", "refuse"),
        ("int3-row", "drop 2 of 5", "refuse"),
        ("int3-row", "drop 2 of 10", "refuse"),
        ("int4-row", "equal", "accept"),
        ("int3-row", "equal", "accept"),
    ]
    found = []
    for version, change, right in cases:
        drawn = population(version, change)
        paths = sequential_paths(drawn, margin=MARGIN, most=LONGEST, reps=reps)
        for chance in CHANCES:
            row = _cost(drawn, paths, right=right, chance=chance)
            found.append(row)
            print(row, flush=True)
    sized = {r["chance"]: r["fixed"] for r in found if r["population"] == SIZED_FOR}
    for row in found:
        told = row["right"] == "refuse" and row["used"]
        row["sized_ratio"] = row["used"] / sized[row["chance"]] if told else None
    return found


def wald(chance: float) -> float:
    """Return the least ratio of items that any sequential test can reach; see the module."""
    error, missed = FALSE_REFUSE / 2, 1 - chance
    needed = chance * math.log(chance / error) + missed * math.log(missed / (1 - error))
    normal = NormalDist()
    return 2 * needed / (normal.inv_cdf(1 - error) + normal.inv_cdf(chance)) ** 2


def _cost(
    drawn: Population, paths: list[tuple[int, Decision]], *, right: Outcome, chance: float
) -> dict[str, Any]:
    stops = sorted(n for n, d in paths if d.outcome == right)
    needed = int(np.ceil(chance * len(paths)))
    wrong = share([d for _, d in paths], "accept" if right == "refuse" else "refuse")
    row = {"population": drawn.name, "right": right, "chance": chance, "wrong": wrong}
    if len(stops) < needed:
        return {**row, "at_most": None, "used": None, "median": None, "fixed": None, "ratio": None}
    at_most = stops[needed - 1]
    uses = [min(n, at_most) for n, _ in paths]
    used = float(np.mean(uses))
    items = _least(
        lambda n: (
            share(fixed_outcomes(drawn, margin=MARGIN, items=n, reps=len(paths)), right) >= chance
        )
    )
    return {
        **row,
        "at_most": at_most,
        "used": used,
        "median": float(np.median(uses)),
        "fixed": items,
        "ratio": used / items,
    }


def _least(enough: Callable[[int], bool], step: int = 5) -> int:
    low, high = 0, 1
    while not enough(high * step):
        low, high = high, high * 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle * step) else (middle, high)
    return high * step


def markdown(found: dict[str, Any]) -> str:
    """Return both tables."""
    lines = [
        "| population | margin | wrong verdict | fixed | sequential |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {r['population']} | {r['margin']:.1%} | {r['wrong']} | {r['fixed']:.2%}"
        f" | {r['sequential']:.2%} |"
        for r in found["errors"]
    ]
    lines += [
        "",
        "| population | right verdict | chance | fixed: items | sequential: mean, median, at most"
        " | ratio | Wald's ratio | ratio, sized for 2 points |",
        "|---|---|---|---|---|---|---|---|",
        *(_row(r) for r in found["costs"]),
    ]
    wrong = max(
        *(max(r["fixed"], r["sequential"]) for r in found["errors"]),
        *(r["wrong"] for r in found["costs"]),
    )
    real = [r for r in found["costs"] if r["right"] == "refuse" and r["chance"] == PLANNED]
    losses = [r["ratio"] for r in real if " of " not in r["population"]]
    noisy = [r["ratio"] for r in real if " of " in r["population"]]
    lines += [
        "",
        f"Largest share of wrong verdicts: {wrong:.2%} (goal {GOAL_ERRORS:.0%}). Items used where"
        f" the effect is real, at the planned chance of {PLANNED:.0%}: {min(losses):.0%} to"
        f" {max(losses):.0%} of the fixed test's (goal {GOAL_ITEMS:.0%}); where most changes are"
        f" noise, {min(noisy):.0%} to {max(noisy):.0%}.",
    ]
    return "\n".join(lines) + "\n"


def _row(r: dict[str, Any]) -> str:
    head = f"| {r['population']} | {r['right']} | {r['chance']:.0%} "
    if r["ratio"] is None:
        return head + "| | not reached | | | |"
    refused = r["right"] == "refuse"
    best = f"{wald(r['chance']):.2f}" if refused else ""
    sized = f"{r['sized_ratio']:.2f}" if refused else ""
    uses = f"{r['used']:.0f}, {r['median']:.0f}, {r['at_most']}"
    return head + f"| {r['fixed']} | {uses} | {r['ratio']:.2f} | {best} | {sized} |"


def main() -> None:
    """Simulate, print, and write JSON and Markdown."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.guard", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("out/benchmarks"))
    parser.add_argument("--reps", type=int, default=REPS)
    options = parser.parse_args()
    found = {"reps": options.reps, "errors": errors(options.reps), "costs": costs(options.reps)}
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "guard.json").write_text(json.dumps(found, indent=1) + "\n")
    (options.out / "guard.md").write_text(markdown(found))
    print(markdown(found), end="")


if __name__ == "__main__":
    main()
