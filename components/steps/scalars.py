"""The numbers of a step that KFP's UI compares across runs; their names stay."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


def scalars(step: str, detail: Mapping[str, Any]) -> dict[str, float]:
    """Return a step's scalar metrics by name; none where it measured nothing.

    Args:
        step: Its name.
        detail: What it left.
    """
    match step:
        case "check_data":
            found = _data(detail)
        case "quantize":
            found = _precision(detail)
        case "evaluate":
            found = _evaluation(detail)
        case "rollout":
            found = _rollout(detail)
        case _:
            found = {}
    return {name: float(value) for name, value in found.items() if math.isfinite(value)}


def _data(detail: Mapping[str, Any]) -> dict[str, float]:
    suites = detail.get("suites", ())
    checked = [each for suite in suites for each in suite["expectations"]]
    failed = sum(not each["passed"] for each in checked)
    rows = {f"rows/{suite['name']}": suite["rows"] for suite in suites}
    return {"expectations": len(checked), "expectations_failed": failed, **rows}


def _precision(detail: Mapping[str, Any]) -> dict[str, float]:
    tried, parent = detail.get("tried", ()), detail.get("parent")
    found: dict[str, float] = {"recipes_tried": len(tried)}
    if parent is not None:
        recipe = detail.get("recipe")  # None: the parent is served
        served = next((row for row in tried if row["recipe"] == recipe), parent)
        found |= {
            "size_bytes": served["size_bytes"],
            "size_share": served["size_bytes"] / parent["size_bytes"],
        }
    return found


def _evaluation(detail: Mapping[str, Any]) -> dict[str, float]:
    if "exact_match" not in detail:
        return {}
    found = {"exact_match": detail["exact_match"]["share"]}
    if detail.get("perplexity") is not None:
        found["perplexity"] = detail["perplexity"]
    if detail.get("comparison"):
        found["exact_match_gain"] = detail["comparison"]["difference"]
    return found | {f"exact_match/{each['skill']}": each["share"] for each in detail["skills"]}


def _rollout(detail: Mapping[str, Any]) -> dict[str, float]:
    names = (
        *("decision_s", "pairs", "user_requests_total", "user_requests_failed"),
        "user_requests_on_candidate",
    )
    return {name: detail[name] for name in names if name in detail}
