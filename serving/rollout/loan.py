"""Replicas that the stable version lends to a candidate: who has how many, phase by phase.

The loan stands on the carrier, beside the record, and is written with it when a rollout begins. It
is a level, not a deed: whoever looks at the rollout makes the replicas what its phase says.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from penstock.core.errors import ConfigurationError
from serving.rollout.record import Phase


@dataclass(frozen=True, slots=True)
class Loan:
    """Of one rollout."""

    stable: str
    owns: int
    """Replicas of the stable version, before and after."""

    keeps: int
    """While the candidate is judged; 0: it is stopped, and there is nothing to compare with."""

    candidate: str
    ends: int
    """Replicas of the candidate once it is promoted."""

    starts: int
    """While it is judged."""

    @property
    def alone(self) -> bool:
        """Whether the candidate is the only one that runs."""
        return self.keeps == 0

    def wanted(self, phase: Phase) -> dict[str, int]:
        """Return version's object → replicas; what is left out is as it may be.

        Going back needs the stable version first: it waits for its devices until the candidate's
        pods, which are removed once no traffic reaches them, give them back.
        """
        match phase:
            case "promoted":
                return {self.candidate: self.ends}
            case "rolling_back" | "rollback_blocked" | "rolled_back":
                return {self.stable: self.owns}
            case _:
                return {self.stable: self.keeps, self.candidate: self.starts}

    def to_json(self) -> str:
        """Return the document; `Loan.from_json(loan.to_json()) == loan`."""
        return json.dumps(asdict(self), separators=(",", ":"), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Loan:
        """Read a document; `ConfigurationError` says it is none."""
        try:
            return cls(**json.loads(text))
        except (ValueError, TypeError) as problem:
            raise ConfigurationError(
                f"not a loan of replicas: {problem}",
                hint="it was written by another version of Penstock, or by hand",
            ) from problem
