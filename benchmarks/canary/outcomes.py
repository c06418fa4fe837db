"""What a rule decided, in many replications of the same rollout."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]

PROMOTE, UNDECIDED, ROLL_BACK = 1, 0, -1


@dataclass(frozen=True, slots=True, eq=False)
class Outcomes:
    """One rule's decisions; every array has an entry per replication."""

    decision: npt.NDArray[np.int8]
    """`PROMOTE`, `ROLL_BACK` or `UNDECIDED`."""

    seconds: Floats
    """When it decided; NaN where it did not."""

    exposed: Floats
    """Users' requests that the candidate served until then."""

    replayed: Floats
    """Extra inference calls: one per mirrored request, two per replayed prompt."""

    @classmethod
    def joined(cls, parts: list[Outcomes]) -> Outcomes:
        """Return the replications of all parts, in order."""
        return cls(
            np.concatenate([part.decision for part in parts]),
            np.concatenate([part.seconds for part in parts]),
            np.concatenate([part.exposed for part in parts]),
            np.concatenate([part.replayed for part in parts]),
        )


class Ledger:
    """Outcomes in the making; the first decision about a replication stands."""

    def __init__(self, reps: int) -> None:
        self.outcomes = Outcomes(
            np.zeros(reps, dtype=np.int8), np.full(reps, np.nan), np.zeros(reps), np.zeros(reps)
        )

    @property
    def undecided(self) -> Bools:
        """Return which replications still run."""
        return np.asarray(self.outcomes.decision == UNDECIDED)

    def decide(self, where: Bools, decision: int, seconds: float) -> None:
        """Write a decision down where none stands yet."""
        first = where & self.undecided
        self.outcomes.decision[first] = decision
        self.outcomes.seconds[first] = seconds
