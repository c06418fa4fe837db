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


class Headline(_Value):
    """A run in one line: `no change`, `promoted`, `blocked` and so on, and the reason."""

    decision: str
    reason: str

    def __str__(self) -> str:
        return f"{self.decision}: {self.reason}" if self.reason else self.decision


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

    @property
    def headline(self) -> Headline:
        """What was decided, and why, in one line each."""
        steps = {step.step: step for step in self.steps}
        looked = steps.get("detect_changes")
        failed = self.failure
        if failed is not None and failed.failure is not None and self.outcome == "failed":
            return _refusal(failed.step, failed.failure)
        if self.outcome != "done":
            last = self.steps[-1].step if self.steps else "before the first step"
            return Headline(decision=self.outcome, reason=f"in {last}")
        if looked is not None and looked.detail.get("outcome") not in (None, "changed"):
            return Headline(decision=looked.detail["outcome"], reason=looked.detail["reason"])
        for name in ("rollout", "judge_engine", "evaluate"):
            found = steps[name].detail if name in steps else {}
            found = found.get("verdict", found)
            if "outcome" in found:
                told = str(found["outcome"]).replace("_", " ")
                return Headline(decision=told, reason=str(found.get("reason", "")))
        return Headline(decision="done", reason="")

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
            "headline": self.headline.model_dump(),
            "wall_s": round(self.wall_s, 3),
            "steps": steps,
            "failure": failed.failure.model_dump() if failed and failed.failure else None,
            "result": {s.step: s.detail for s in self.steps if s.detail},
        }


_GATE = 4
"""Exit code of a check that said no (`penstock.core.errors`)."""


def _refusal(step: str, failure: Failure) -> Headline:
    told = failure.message.partition("\n")[0]
    if failure.kind in ("RolledBack", "Unproven"):
        return Headline(decision="rolled back", reason=told)
    if failure.kind == "DeadlinePassed":
        return Headline(decision="deadline", reason=f"{step}: {told}")
    decision = "blocked" if failure.exit_code == _GATE else "failed"
    return Headline(decision=decision, reason=f"{step}: {told}")
