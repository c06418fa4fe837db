"""Betting e-processes: evidence that stays valid however often one looks, and whenever one stops.

For bounded x with the null E[x | past] ≤ 0, the wealth of a gambler who stakes a fixed share of
what he has on every x, ∏(1 + λ·x), is a supermartingale; so is the mean over several λ. By Ville's
inequality it ever reaches 1/alpha with probability at most alpha, under any stopping rule, and
under any dependence that leaves the conditional mean at or below 0 (noise that both versions
share does).

Source: Waudby-Smith and Ramdas, JRSS-B 86 (2024), "Estimating means of bounded random variables by
betting"; Ville (1939); averaging e-values: Vovk and Wang, Annals of Statistics 49 (2021).

Log-wealth is kept in whole numbers of 2⁻³² nats, each factor rounded down from a logarithm with 30
decimal places. Rounding down loses a little wealth and no validity; sums of whole numbers do not
depend on order, processor or library, so that a decision replays bit for bit anywhere.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import ROUND_FLOOR, Context, Decimal
from fractions import Fraction

import numpy as np

from serving.rollout.evidence import Ints

BETS = tuple(map(Fraction, ("0.02", "0.05", "0.11", "0.22", "0.4", "0.65", "0.95")))
"""Stakes, as shares of the largest that cannot lose everything."""

UNIT = 2**32
"""One nat of log-wealth."""

_SAFETY = Fraction("0.98")  # the worst x never takes all
_EXACT = Context(prec=30, rounding=ROUND_FLOOR)


def stakes(count: int) -> Ints:
    """Return the log-wealth of `count` processes that saw nothing: (count, len(BETS)) zeros."""
    return np.zeros((count, len(BETS)), dtype=np.int64)


def factors(values: Sequence[Fraction]) -> Ints:
    """Return what one observation of each value adds to log-wealth: (len(values), len(BETS)).

    Args:
        values: Every x that may be observed; the smallest, below 0, bounds the stakes.
    """
    largest = _SAFETY / -min(values)
    table = [[_log(1 + bet * largest * x) for bet in BETS] for x in values]
    found = np.array(table, dtype=np.int64)
    found.flags.writeable = False  # it is shared
    return found


def _log(factor: Fraction) -> int:
    """Return ln(factor) in `UNIT`s, rounded down."""
    ratio = _EXACT.divide(Decimal(factor.numerator), Decimal(factor.denominator))
    return int((_EXACT.ln(ratio) * UNIT).to_integral_value(ROUND_FLOOR))


def log_evidence(wealth: Ints) -> list[float]:
    """Return ln of each process's e-value: the mean over its bets; `wealth` is (n, len(BETS)).

    Rounded down to 1e-9, so that the last bit of a platform's exp decides nothing.
    """
    logs = wealth / UNIT
    highest = logs.max(axis=1)
    means = np.exp(logs - highest[:, None]).mean(axis=1)
    found: list[float] = (np.floor((highest + np.log(means)) * 1e9) / 1e9).tolist()
    return found


def log_mean(logs: Sequence[float]) -> float:
    """Return ln of the mean of e-values, given their logarithms: again an e-value; rounded down."""
    highest = max(logs)
    total = math.fsum(math.exp(log - highest) for log in logs)
    return math.floor((highest + math.log(total / len(logs))) * 1e9) / 1e9
