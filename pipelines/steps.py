"""The steps of every pipeline by name; importable without KFP."""

from __future__ import annotations

from typing import Literal

Pipeline = Literal["lifecycle", "engine", "retrain", "evaluate", "rollback"]

STEPS = (
    *("resolve", "pull", "scan", "check_data", "quantize", "evaluate", "register"),
    *("deploy", "rollout"),
)
"""What a person waits for in the lifecycle, in order."""

ENGINE_STEPS = ("resolve", "pull", "scan", "plan_engine", "build_engine", "judge_engine")
"""What a person waits for until an engine may be served."""

RETRAIN_STEPS = (
    *("detect_changes", "resolve", "pull", "scan", "check_data", "train"),
    *STEPS[STEPS.index("quantize") :],
)
"""What a person waits for until something new is served; the first alone where nothing is new."""

EVALUATE_STEPS = ("resolve", "pull", "scan", "check_data", "evaluate")
ROLLBACK_STEPS = ("rollout",)

STEPS_OF: dict[Pipeline, tuple[str, ...]] = {
    "lifecycle": STEPS,
    "engine": ENGINE_STEPS,
    "retrain": RETRAIN_STEPS,
    "evaluate": EVALUATE_STEPS,
    "rollback": ROLLBACK_STEPS,
}
