"""The steps of every pipeline by name; importable without KFP."""

from __future__ import annotations

from typing import Literal

Pipeline = Literal["lifecycle", "engine"]

STEPS = (
    *("resolve", "pull", "scan", "check_data", "quantize", "evaluate", "register"),
    *("deploy", "rollout"),
)
"""What a person waits for in the lifecycle, in order."""

ENGINE_STEPS = ("resolve", "pull", "scan", "plan_engine", "build_engine", "judge_engine")
"""What a person waits for until an engine may be served."""
