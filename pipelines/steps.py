"""The steps of the lifecycle by name; importable without KFP."""

from __future__ import annotations

STEPS = (
    *("resolve", "pull", "scan", "check_data", "quantize", "evaluate", "register"),
    *("deploy", "rollout"),
)
"""What a person waits for, in order."""
