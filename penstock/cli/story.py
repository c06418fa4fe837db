"""The demo's later chapters: three more versions meet the evidence, while users go on asking."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import click

from penstock.cli.run import new_run_id, run_lifecycle
from penstock.core.errors import ConfigurationError
from penstock.core.runs import RunRecord
from penstock.core.spec import ModelSpec

FAULT = "--fault=live-errors=0.3"


@dataclass(frozen=True, slots=True)
class Chapter:
    """One more version."""

    title: str
    changes: Mapping[str, Any]
    """Fields of the spec that differ from the first version's."""

    gate_refuses: bool = False
    """Whether the evaluation must stop it, before it is overridden."""


def chapters(spec: ModelSpec) -> list[Chapter]:
    """Return what happens after the first version, in order."""
    overridden = {"min_exact_match": 0.0, "max_quality_loss": 1.0}
    return [
        Chapter(
            "v2, trained a little further: as good as v1",
            {"source": "hf://penstock/skills-retrained"},
        ),
        Chapter(
            "v3, a fine-tune that quietly lost a skill",
            {"source": "hf://penstock/skills-forgetful"},
            gate_refuses=True,
        ),
        Chapter(
            "v3 again, with the evaluation's gate overridden: what if nobody had evaluated it?",
            {
                "source": "hf://penstock/skills-forgetful",
                "evaluation": spec.evaluation.model_copy(update=overridden),
            },
        ),
        Chapter(
            f"v4, the weights of v2 with an engine that fails live requests ({FAULT})",
            {"source": "hf://penstock/skills-retrained", "runtime_args": [FAULT]},
        ),
    ]


def tell(spec: ModelSpec, env: Mapping[str, str]) -> Iterator[RunRecord]:
    """Run every chapter; yield its record. What is rolled back is an outcome, not an error."""
    for chapter in chapters(spec):
        click.echo(f"\n{chapter.title}")
        run = {**env, "PENSTOCK_RUN_ID": new_run_id()}
        changed = spec.model_copy(update=dict(chapter.changes))
        record = run_lifecycle(changed, run, started_at=time.time(), quiet=False)
        failed = record.failure
        kind = failed.failure.kind if failed is not None and failed.failure is not None else ""
        wanted = ("EvaluationFailed",) if chapter.gate_refuses else ("", "RolledBack")
        if kind not in wanted or (record.outcome != "done" and not kind):
            raise ConfigurationError(
                f"{chapter.title}: ended as {record.outcome} ({kind or 'no step says why'})",
                hint="see the run's report and log",
            )
        yield record


def rollouts(records: list[RunRecord]) -> list[dict[str, Any]]:
    """Return what became of every candidate, as `summary.json` has it."""
    keys = (
        *("candidate", "outcome", "reason", "decision_s", "user_requests_total"),
        *("user_requests_failed", "user_requests_on_candidate"),
    )
    details = [s.detail for r in records for s in r.steps if s.step == "rollout"]
    return [{key: d[key] for key in keys} for d in details if "candidate" in d]
