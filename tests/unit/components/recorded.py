"""Records of runs as the steps leave them, for tests of what is shown of them."""

from __future__ import annotations

import math
import random
from typing import Any

from components.steps.verbs import against
from penstock.core.runs import Failure, RunRecord, StepRecord

DIGEST = f"sha256:{'5eb63bbbe01eeed093cb22bb8f5acdc3' * 2}"
SKILLS = ("add", "compare", "date", "decline", "json", "sort", "table")
SPEC = {
    "name": "skills",
    "source": "hf://acme/skills",
    "evaluation": {"min_exact_match": 0.9, "max_quality_loss": 0.02},
}
Detail = dict[str, Any]


def promoted() -> RunRecord:
    """Return a retraining that was promoted."""
    steps = [*_trained(), ("evaluate", _evaluation(_items(0.97))), *_served()]
    return _run(steps)


def blocked() -> RunRecord:
    """Return a retraining whose evaluation says that a skill was lost."""
    found = _evaluation(_items(0.97, table=0.55))
    why = Failure(
        kind="EvaluationFailed",
        message=found["verdict"]["reason"],
        hint="the report shows every skill; improve the model, or change evaluation in model.yaml",
        exit_code=4,
    )
    return _run([*_trained(), ("evaluate", found)], why)


def no_change() -> RunRecord:
    """Return a look that found nothing new."""
    told = "base, data, strategy, code and image are the champion's"
    return _run([("detect_changes", _looked("no change", told, []))])


def _run(steps: list[tuple[str, Detail]], failure: Failure | None = None) -> RunRecord:
    began = 1_780_000_000.0
    records = [
        StepRecord(
            step=name,
            outcome="failed" if failure is not None and number == len(steps) else "done",
            started_at=began + 20.0 * number,
            seconds=19.0,
            detail=detail,
            failure=failure if number == len(steps) else None,
        )
        for number, (name, detail) in enumerate(steps, start=1)
    ]
    return RunRecord(
        run_id="20260701-100000-ab12",
        name="skills",
        started_at=began,
        wall_s=20.0 * len(steps),
        outcome="failed" if failure is not None else "done",
        spec=SPEC,
        steps=tuple(records),
        environment={"penstock": "0.1.0", "python": "3.11", "machine": "Linux x86_64"},
    )


def _looked(outcome: str, reason: str, changes: list[Detail]) -> Detail:
    return {
        "outcome": outcome,
        "reason": reason,
        "changes": changes,
        "champion": 1,
        "inputs": {},
        "because": "the clock",
    }


def _trained() -> list[tuple[str, Detail]]:
    new = {"what": "data.train", "told": f"{DIGEST[:19]} → {DIGEST[:18]}0"}
    gates = ("pickle", "remote-code", "safetensors", "config", "tokenizer", "licence")
    expectations = ("ids are unique", "no prompt comes twice", "answers are not empty")
    return [
        ("detect_changes", _looked("changed", f"data.train: {new['told']}", [new])),
        ("resolve", {"source": "hf://acme/skills@0123abc", "data": {}, "runtime": "cpu"}),
        (
            "pull",
            {
                "root": DIGEST,
                "files": [
                    {"path": f"model-{n:05}.safetensors", "size_bytes": 4 << 30, "digest": DIGEST}
                    for n in range(8)
                ],
            },
        ),
        (
            "scan",
            {
                "gates": [{"name": g, "outcome": "passed", "reason": f"no {g}"} for g in gates],
                "licence": "apache-2.0",
            },
        ),
        (
            "check_data",
            {
                "suites": [
                    {
                        "name": name,
                        "rows": 600,
                        "passed": True,
                        "expectations": [
                            {"name": e, "passed": True, "failing_rows": [], "failing_count": 0}
                            for e in expectations
                        ],
                    }
                    for name in ("train", "evaluate")
                ],
                "docs": "/var/lib/penstock/runs/20260701-100000-ab12/data-checks/docs/index.html",
            },
        ),
        ("train", _training()),
        ("quantize", _precision()),
    ]


def _training() -> Detail:
    curve = [
        {"step": float(n), "loss": 1.5 * math.exp(-n / 9), "learning_rate": 3e-4 * (1 - n / 30)}
        | ({"eval_loss": 1.4 * math.exp(-n / 10)} if n % 5 == 0 else {})
        for n in range(1, 31)
    ]
    return {
        "root": DIGEST,
        "base_root": DIGEST,
        "data": DIGEST,
        "strategy": {"method": "lora", "lora": {"rank": 8, "alpha": 16}, "seed": 20260701},
        "rate": 3e-4,
        "rows": 560,
        "held_out": 40,
        "steps": 30,
        "resumed_at": 0,
        "trained_parameters": 2_091_072,
        "curve": curve,
        "first_loss": 1.5,
        "loss": 0.1,
        "eval_loss": 0.07,
        "tokens_per_s": 4321.0,
        "train_s": 36.0,
        "peak_bytes": 1_330_000_000,
        "device": "cpu",
        "processes": 1,
        "tracking_run": "0a1b2c3d4e5f",
        "libraries": {"trl": "1.16.0", "peft": "0.21.2"},
        "found": False,
    }


def _precision() -> Detail:
    def row(label: str, outcome: str, size: int, score: float) -> Detail:
        return {
            "label": label,
            "recipe": {"kind": label},
            "outcome": outcome,
            "reason": f"the guard says: {outcome}",
            "size_bytes": size,
            "score": score,
            "wall_s": 61.0,
            "peak_bytes": 3 << 30,
        }

    return {
        "outcome": "accept",
        "reason": "w8a8: 52% of the size; a loss of more than 0.8% is excluded",
        "recipe": {"kind": "w8a8"},
        "parent_root": DIGEST,
        "parent": {"size_bytes": 8_000_000, "score": 0.97, "tokens_per_cpu_s": 900.0},
        "tried": [
            row("w4a16", "refuse", 2_900_000, 0.81),
            row("w8a8", "accept", 4_160_000, 0.968),
        ],
    }


def _items(share: float, **other: float) -> list[Detail]:
    drawn = random.Random(7)
    return [
        {
            "id": f"{skill}-{n}",
            "skill": skill,
            "expected": str(n),
            "answered": str(n + 1),
            "tokens": 3,
            "correct": drawn.random() < other.get(skill, share),
        }
        for skill in SKILLS
        for n in range(60)
    ]


def _share(skill: str, items: list[Detail]) -> Detail:
    right = sum(each["correct"] for each in items)
    share = right / len(items)
    spread = 1.96 * math.sqrt(share * (1 - share) / len(items))
    low, high = max(0.0, share - spread), min(1.0, share + spread)
    counted = {"n": len(items), "correct": right, "share": share, "low": low, "high": high}
    return {"skill": skill, **counted}


def _evaluation(items: list[Detail]) -> Detail:
    comparison = against(_items(0.97), items, 0.02) | {"against": "version 1"}
    outcome, reason = comparison["outcome"], comparison["reason"]
    told = f"compared with version 1: {reason}" if outcome != "pass" else f"{reason}"
    return {
        "exact_match": _share("all", items),
        "skills": [_share(s, [i for i in items if i["skill"] == s]) for s in SKILLS],
        "perplexity": 1.021,
        "comparison": comparison,
        "verdict": {"outcome": outcome, "reason": told},
        "wrong": [i for i in items if not i["correct"]][:12],
    }


def _served() -> list[tuple[str, Detail]]:
    looks = [
        ("warmup", 0, "the candidate is ready"),
        ("shadow", 0, "the candidate is warm"),
        ("ramp", 25, "proven in shadow (58 pairs)"),
        ("ramp", 50, "proven live at 25 % (140 live requests)"),
        ("soak", 100, "proven live (464 live requests)"),
        ("promoted", 100, "proven live (464 live requests)"),
    ]
    curve = [
        {
            "s": 11.0 * n,
            "phase": phase,
            "held": "",
            "weight": weight,
            "rollback": -0.1 * n,
            "proofs": {"error_rate": 0.9 * n, "quality": 0.7 * n},
            "reason": reason,
        }
        for n, (phase, weight, reason) in enumerate(looks)
    ]
    kept = "/var/lib/penstock/runs/20260701-100000-ab12/rollout/certificate.json"
    return [
        (
            "register",
            {
                "model": "skills",
                "version": 2,
                "run_id": "706740a5e6794b8baa4fdd9adceb3186",
                "source_uri": f"file:///var/lib/penstock/store/checkpoints/{DIGEST[7:]}",
                "aliases": ["challenger"],
            },
        ),
        (
            "deploy",
            {
                "service": "skills-v2",
                "url": "http://skills.example",
                "version": 2,
                "ready_s": None,
                "weights": {"skills-v1": 100},
                "replaced": [],
                "latency": None,
            },
        ),
        (
            "rollout",
            {
                "version": 2,
                "candidate": "skills-v2",
                "stable": "skills-v1",
                "outcome": "promoted",
                "reason": "proven live (464 live requests)",
                "decision_s": 66.4,
                "pairs": 1034,
                "user_requests_total": 2651,
                "user_requests_failed": 0,
                "user_requests_on_candidate": 693,
                "certificate": kept,
                "curve": curve,
                "bounds": {"rollback": 100.0, "proof": 20.0},
            },
        ),
    ]
