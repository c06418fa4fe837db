"""What happened in a run: one record per step, and the summary over them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Outcome = Literal["running", "done", "reused", "failed", "interrupted"]


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Failure(_Value):
    """Why a step failed, for people and for the exit code."""

    kind: str
    """Class of the error."""

    message: str
    hint: str = ""
    exit_code: int = 1


class StepRecord(_Value):
    """One step of one run; `detail` holds what the step found, as JSON values."""

    step: str
    outcome: Outcome
    started_at: float
    """Seconds since the epoch."""

    seconds: float = 0.0
    detail: dict[str, Any] = Field(default_factory=dict)
    failure: Failure | None = None


class RunRecord(_Value):
    """A run: its spec and its steps in the order they started."""

    run_id: str
    name: str
    started_at: float
    wall_s: float
    outcome: Literal["done", "failed", "interrupted"]
    spec: dict[str, Any]
    steps: tuple[StepRecord, ...]
    environment: dict[str, str] = Field(default_factory=dict)
    """Versions and machine, for the report."""

    @property
    def failure(self) -> StepRecord | None:
        """The step that failed first, if any."""
        return next((s for s in self.steps if s.failure is not None), None)

    def summary(self) -> dict[str, Any]:
        """Return what `summary.json` holds: steps with seconds and outcome, and the headline."""
        steps = [
            {"name": s.step, "seconds": round(s.seconds, 3), "outcome": s.outcome}
            for s in self.steps
        ]
        failed = self.failure
        return {
            "run_id": self.run_id,
            "name": self.name,
            "outcome": self.outcome,
            "wall_s": round(self.wall_s, 3),
            "steps": steps,
            "failure": failed.failure.model_dump() if failed and failed.failure else None,
            "result": {s.step: s.detail for s in self.steps if s.detail},
        }
