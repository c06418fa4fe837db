"""The report's sections, one per step; drawn from what the step left."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from components.steps import curves, judged, precision, training_report
from components.steps.fitting import Tables
from components.steps.plots import intervals
from penstock.core.runs import RunRecord, StepRecord


def _new(step: StepRecord, _run: RunRecord, table: Tables) -> str:
    """What a retraining looked at: what is new, or why nothing was trained."""
    found = step.detail
    rows = [["decision", f"{found['outcome']}: {found['reason']}"]]
    rows += [["asked for by", found["because"]]]
    version = found["champion"]
    rows += [["champion", "none" if version is None else f"version {version}"]]
    rows += [[f"new: {each['what']}", each["told"]] for each in found["changes"]]
    return table(None, rows)


def _plan(step: StepRecord, _run: RunRecord, table: Tables) -> str:
    """What was left to Penstock, and why it chose so; nothing where nothing was."""
    plan = step.detail.get("plan")
    if not plan:
        return ""
    rows = [["chosen", plan["told"]]]
    rows += [["because", reason] for reason in plan["reasons"]]
    rows += [["beware", warning] for warning in plan["warnings"]]
    rows += [[f"not {each['what']}", each["why"]] for each in plan["rejected"]]
    return table(None, rows)


def _training(step: StepRecord, _run: RunRecord, table: Tables) -> str:
    return training_report.section(step.detail, table) if "curve" in step.detail else ""


def _precision(step: StepRecord, _run: RunRecord, table: Tables) -> str:
    return precision.section(step.detail, table)


def _judged(step: StepRecord, _run: RunRecord, table: Tables) -> str:
    return judged.section(step.detail, table)


def _engine(step: StepRecord, _run: RunRecord, table: Tables) -> str:
    found = step.detail
    if "key" not in found:
        return f"<p>Refused: {escape(found['refused'])}</p>" if "refused" in found else ""
    node, shape = found["node"], found["shape"]
    rows = [
        ["build key", found["key"]],
        ["made", f"{found['strategy']}, {found['scheme']}, for {found['image']}"],
        ["runs on", f"{node['gpu']} (SM{node['sm']})" if node else "any GPU with the precision"],
        ["GPUs (tensor x pipeline)", f"{shape['tp']} x {shape['pp']}"],
        ["served by", shlex.join(found["serve"])],
    ]
    took = f"{found['seconds']:.1f} s" if "seconds" in found else "-"
    rows += [["from", "the cache" if found.get("reused") else f"this build, {took}"]]
    rows += [
        [f"stage {s['output']}", f"{s['seconds']:.1f} s, exit code {s['exit_code']}"]
        for s in found.get("stages", [])
    ]
    if "folder" in found:
        rows += [
            ["folder", found["folder"]],
            ["size", f"{found['size_bytes'] / 1e6:,.1f} MB in {len(found['files'])} files"],
        ]
    return table(None, rows)


def _evaluation(step: StepRecord, run: RunRecord, table: Tables) -> str:
    found = step.detail
    verdict = found["verdict"]
    outcome = escape(verdict["outcome"])
    badge = f'<span class="badge {outcome}">{outcome}</span>'
    head = f'<p class="lead">{badge} {escape(verdict["reason"])}</p>'
    if "exact_match" not in found:
        return head
    shares = [{"skill": "all", **found["exact_match"]}, *found["skills"]]
    plot = intervals(
        [(s["skill"], s["low"], s["share"], s["high"]) for s in table.some(shares)],
        run.spec.get("evaluation", {}).get("min_exact_match"),
    )
    rows = [
        [s["skill"], f"{s['correct']} of {s['n']}", f"{s['low']:.1%} to {s['high']:.1%}"]
        for s in shares
    ]
    perplexity = found.get("perplexity")
    told = f"{perplexity:.3f}" if perplexity else f"skipped: {found['perplexity_skipped']}"
    return (
        f"{head}{plot}{table(['skill', 'right', '95 % interval (Wilson)'], rows)}"
        f"<p>Perplexity of the right answers: {escape(told)}</p>"
        f"{_comparison(found.get('comparison'), table)}{_wrong(found.get('wrong', []), table)}"
    )


def _comparison(found: Mapping[str, Any] | None, table: Tables) -> str:
    if not found:
        return "<p>No earlier version to compare with.</p>"
    rows = [
        ["outcome", found["outcome"]],
        ["difference", f"{found['difference']:+.2%}"],
        ["bounds (95 % one-sided, Tango)", f"{found['low']:+.2%} to {found['high']:+.2%}"],
        ["gained / lost items", f"{found['gained']} / {found['lost']} of {found['n']}"],
        [
            "margin, and the smallest shown",
            f"{found['margin']:.2%}, {found['smallest_margin']:.2%}",
        ],
        ["McNemar, exact", f"p = {found['mcnemar_p']:.3g}"],
    ]
    skills = [
        [
            each["skill"],
            f"{each['gained']} / {each['lost']} of {each['n']}",
            f"{each['difference']:+.1%}",
            f"{each['adjusted_p']:.3g}",
            "fail" if each["regressed"] else "pass",
        ]
        for each in found.get("skills", [])
    ]
    head = ["skill", "gained / lost", "difference", "p (sign test, Holm)", "regressed"]
    beside = table(head, skills) if skills else ""
    return f"<h3>Against {escape(found['against'])}</h3>{table(None, rows)}{beside}"


def _wrong(items: Sequence[Mapping[str, Any]], table: Tables) -> str:
    if not items:
        return ""
    rows = [[i["id"], i["skill"], i["expected"], i["answered"]] for i in items]
    listed = table(["item", "skill", "expected", "answered"], rows)
    return f"<details><summary>The first wrong answers</summary>{listed}</details>"


def _scans(step: StepRecord, _run: RunRecord, table: Tables) -> str:
    rows = [[g["name"], g["outcome"], g["reason"]] for g in step.detail["gates"]]
    return table(["gate", "outcome", "reason"], rows)


def _data_checks(step: StepRecord, _run: RunRecord, table: Tables) -> str:
    rows = [
        [
            suite["name"],
            each["name"],
            "passed" if each["passed"] else "failed",
            f"{each['failing_count']} rows: {', '.join(each['failing_rows'])}"
            if each["failing_count"]
            else f"{suite['rows']} rows",
        ]
        for suite in step.detail.get("suites", [])
        for each in suite["expectations"]
    ]
    docs = step.detail.get("docs")
    link = f"<p>Data Docs: <code>{escape(docs)}</code></p>" if docs else ""
    return table(["set", "expectation", "outcome", "rows"], rows) + link


def _serving(step: StepRecord, _run: RunRecord, table: Tables) -> str:
    found = step.detail
    rows = [
        ["URL", found["url"]],
        ["InferenceService", found["service"]],
        ["ready after", "-" if found["ready_s"] is None else f"{found['ready_s']:.1f} s"],
        ["weights", ", ".join(f"{k} {v} %" for k, v in found["weights"].items())],
        ["replaced", ", ".join(found["replaced"]) or "nothing"],
    ]
    latency = found.get("latency")
    if latency:
        for key, name in (("ttft_s", "TTFT"), ("e2e_s", "E2E")):
            p = latency[key]
            rows.append(
                [
                    f"{name} through the gateway",
                    f"p50 {p['p50'] * 1000:.0f} ms, p95 {p['p95'] * 1000:.0f} ms "
                    f"({latency['requests']} requests)",
                ]
            )
    return table(None, rows)


def candidate(run: RunRecord) -> StepRecord | None:
    """The step that decided about a candidate, if one did."""
    return next((s for s in run.steps if s.step == "rollout" and "candidate" in s.detail), None)


def rollout_title(run: RunRecord) -> str:
    """Return the title, with the candidate's name where there was one."""
    step = candidate(run)
    return f"Rollout of {escape(step.detail['candidate'])}" if step else "Rollout"


def rollout(step: StepRecord, run: RunRecord, table: Tables) -> str:
    """Return what evidence decided, over time and in numbers."""
    found = step.detail
    outcome = escape(found["outcome"])
    head = (
        f'<p class="lead"><span class="badge {outcome}">{outcome.replace("_", " ")}</span> '
        f"{escape(sentence(found))}</p>"
    )
    if "candidate" not in found:
        return head
    metrics = run.spec.get("rollout", {}).get("metrics", {})

    def wanted(phase: str, metric: str) -> bool:
        setting = "shadow" if phase == "shadow" else "live"
        return setting in metrics.get(metric, {}).get("prove_in", [setting])

    title = f"Evidence and traffic of {found['candidate']} over time"
    plot = curves.evidence(found["curve"], found["bounds"], wanted, title)
    told = _CURVE_TOLD if plot else "Nothing was seen of it."
    return (
        f'{head}{plot}<p class="sub">{told}</p>{_decisions(found["curve"], table)}'
        f"{_rollout_numbers(found, table)}{_certificate(found['certificate'])}"
    )


_TIGHT = "\N{NO-BREAK SPACE}"
_CURVE_TOLD = (
    "E-values on a logarithmic scale: 1 says nothing, more is evidence. Dashed: the bounds. The "
    "look that takes the weakest metric over its bound is where the next phase begins, with proofs "
    "anew."
)


def sentence(found: Mapping[str, Any]) -> str:
    """Return what became of a candidate, and why."""
    reason = found["reason"].rstrip(".")
    match found["outcome"]:
        case "first":
            return f"Served as the first version: {reason}."
        case "promoted":
            return f"{found['candidate']} took over from {found['stable']}: {reason}."
        case "rolled_back":
            return (
                f"{found['candidate']} was rolled back, {found['stable']} is served as before: "
                f"{reason}."
            )
        case _:
            return f"{reason}."


def _decisions(curve: Sequence[Mapping[str, Any]], table: Tables) -> str:
    """Every decision in words; what follows from the one before has its reason."""
    decided = curves.bands(curve)
    before = ["", *(band.reason for band in decided)]
    rows = [
        [
            _elapsed(band.start_s),
            band.told,
            f"{band.weight}{_TIGHT}%",
            "as above" if band.reason == reason else band.reason,
        ]
        for band, reason in zip(decided, before, strict=False)
    ]
    return table(["time", "phase", "weight", "reason"], rows) if rows else ""


def _rollout_numbers(found: Mapping[str, Any], table: Tables) -> str:
    rows = [
        ["decided after", _elapsed(found["decision_s"])],
        ["pairs of answers compared", f"{found['pairs']:,}"],
        ["users' requests", f"{found['user_requests_total']:,}"],
        ["of these failed", f"{found['user_requests_failed']:,}"],
        ["of these on the candidate", f"{found['user_requests_on_candidate']:,}"],
    ]
    return f"<h3>In numbers</h3>{table(None, rows)}"


def _certificate(path: str) -> str:
    if not path:
        return (
            "<p>No certificate: the log of its events does not lead to the record. It is longer "
            "than what is kept, or was changed.</p>"
        )
    command = f"penstock rollout certificate verify {shlex.quote(path)}"
    return (
        f"<p>Certificate: <code>{escape(path)}</code><br>"
        f"Decide again from its evidence: <code>{escape(command)}</code></p>"
    )


def _elapsed(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f}{_TIGHT}s"
    minutes, rest = divmod(round(seconds), 60)
    told = f"{minutes} min {rest} s" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"
    return told.replace(" ", _TIGHT)


def _registry(step: StepRecord, _run: RunRecord, table: Tables) -> str:
    found = step.detail
    rows = [
        ["model", f"{found['model']}, version {found['version']}"],
        ["MLflow run", found["run_id"]],
        ["weights", found["source_uri"]],
    ]
    return table(None, rows)


def _digests(step: StepRecord, _run: RunRecord, table: Tables) -> str:
    found = step.detail
    rows = [[f["path"], f"{f['size_bytes']:,}", f["digest"]] for f in found["files"]]
    return f"<p>Root <code>{escape(found['root'])}</code></p>" + table(
        ["file", "bytes", "digest"], rows
    )


LEAD = '<p class="lead">'
"""How a section begins whose first words are a page's headline."""

Draw = Callable[[StepRecord, RunRecord, Tables], str]


@dataclass(frozen=True, slots=True)
class Section:
    """What is drawn of one step."""

    step: str
    title: str
    draw: Draw

    def drawn(self, step: StepRecord, run: RunRecord, table: Tables) -> str:
        """Return its HTML; empty where a step left nothing, or failed on its way to it."""
        if not step.detail:
            return ""
        try:
            return self.draw(step, run, table)
        except KeyError:
            if step.outcome in ("done", "reused"):
                raise
            return ""  # it failed with half of it written down; the failure is told


SECTIONS = (
    Section("detect_changes", "What is new", _new),
    Section("resolve", "Plan", _plan),
    Section("train", "Training", _training),
    Section("quantize", "Precision", _precision),
    Section("build_engine", "TensorRT-LLM", _engine),
    Section("judge_engine", "Verdict on what was built", _judged),
    Section("evaluate", "Evaluation", _evaluation),
    Section("scan", "Scans", _scans),
    Section("check_data", "Data checks", _data_checks),
    Section("deploy", "Serving", _serving),
    Section("rollout", "Rollout", rollout),
    Section("register", "Registry", _registry),
    Section("pull", "Digests", _digests),
)
"""In the order of the report."""
