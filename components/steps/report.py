"""The report of a run: one HTML file with everything in it, also for a run that failed."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from typing import Any

from components.steps import curves, precision
from components.steps.plots import Bar, intervals, timeline
from penstock.core.runs import RunRecord, StepRecord

_STYLE = """
:root{--ink:#1b1f24;--soft:#5a6470;--paper:#fff;--line:#d9dee4;--good:#1a7f4b;--bad:#c0362c;
--reuse:#7a8ca3;--mark:#2b6cb0;--panel:#f5f7f9}
@media (prefers-color-scheme:dark){:root{--ink:#e6eaef;--soft:#9aa7b5;--paper:#14181d;
--line:#2e363f;--good:#4cc38a;--bad:#ff7b6e;--reuse:#6d7f96;--mark:#6cb0f5;--panel:#1c2229}}
*{box-sizing:border-box}
body{font:16px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);margin:0 auto;
max-width:46rem;padding:1rem}
h1{font-size:1.5rem;margin:.5rem 0}h2{font-size:1.15rem;margin:2rem 0 .5rem;
border-bottom:1px solid var(--line)}
.sub,.told{color:var(--soft);fill:var(--soft)}
.badge{display:inline-block;padding:.1rem .6rem;border-radius:1rem;color:var(--paper);
background:var(--good);font-size:.9rem}.badge.failed,.badge.fail,.badge.interrupted,
.badge.insufficient_items,.badge.rolled_back{background:var(--bad)}.badge.skipped,
.badge.first{background:var(--reuse)}
.failure{border-left:4px solid var(--bad);background:var(--panel);padding:.6rem .9rem;
white-space:pre-wrap;overflow-wrap:anywhere}
svg{width:100%;max-width:36rem;height:auto;font:13px system-ui,sans-serif;fill:var(--ink);
margin:.5rem 0}
rect{fill:var(--good)}rect.reused{fill:var(--reuse)}rect.failed,rect.interrupted{fill:var(--bad)}
.axis{stroke:var(--line)}.interval{stroke:var(--mark);stroke-width:3}.point{fill:var(--mark)}
.floor{stroke:var(--bad);stroke-dasharray:4 3}
.scroll{overflow-x:auto}table{border-collapse:collapse;width:100%;font-size:.92rem}
th,td{text-align:left;padding:.25rem .6rem .25rem 0;border-bottom:1px solid var(--line);
vertical-align:top;overflow-wrap:break-word}th{color:var(--soft);font-weight:500}
code{font-size:.85em;overflow-wrap:anywhere}
.ok{color:var(--good)}.no{color:var(--bad)}
@media (max-width:40rem){svg{font-size:15px}}
"""


def render(run: RunRecord, others: Sequence[RunRecord] = ()) -> str:
    """Return the page.

    Args:
        run: What it is about.
        others: Further runs, whose rollouts follow; those without a candidate have none.
    """
    steps = {step.step: step for step in run.steps}
    began = datetime.fromtimestamp(run.started_at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    sections: list[tuple[str, str, Callable[[StepRecord, RunRecord], str]]] = [
        ("resolve", "Plan", _plan),
        ("quantize", "Precision", _precision),
        ("build_engine", "TensorRT-LLM", _engine),
        ("evaluate", "Evaluation", _evaluation),
        ("scan", "Scans", _scans),
        ("check_data", "Data checks", _data_checks),
        ("deploy", "Serving", _serving),
        ("rollout", _rollout_title(run), _rollout),
        ("register", "Registry", _registry),
        ("pull", "Digests", _digests),
    ]
    body = "".join(
        f"<h2>{title}</h2>{drawn}"
        for name, title, draw in sections
        if name in steps and steps[name].detail and (drawn := draw(steps[name], run))
    )
    environment = ", ".join(f"{k} {v}" for k, v in run.environment.items())
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(run.name)}: {escape(run.outcome)}</title>"
        f"<style>{_STYLE}{curves.STYLE}{precision.STYLE}</style></head>"
        f'<body><h1>{escape(run.name)} <span class="badge {run.outcome}">{run.outcome}</span></h1>'
        f'<p class="sub">run {escape(run.run_id)} · {began} · {run.wall_s:.1f} s<br>'
        f"{escape(str(run.spec.get('source', '')))}</p>"
        f"{_failure(run)}<h2>Timeline</h2>{_timeline(run)}{body}"
        f"{_further(run, others)}"
        f'<p class="sub">{escape(environment)}</p></body></html>\n'
    )


def _failure(run: RunRecord) -> str:
    failed = run.failure
    if failed is None or failed.failure is None:
        return ""
    hint = f"\nNext: {failed.failure.hint}" if failed.failure.hint else ""
    return f'<p class="failure">{escape(f"{failed.step}: {failed.failure.message}{hint}")}</p>'


def _timeline(run: RunRecord) -> str:
    return timeline(
        [
            Bar(s.step, s.started_at, s.started_at + s.seconds, f"{s.seconds:.1f} s", s.outcome)
            for s in run.steps
        ]
    )


def _plan(step: StepRecord, _run: RunRecord) -> str:
    """What was left to Penstock, and why it chose so; nothing where nothing was."""
    plan = step.detail.get("plan")
    if not plan:
        return ""
    rows = [["chosen", plan["told"]]]
    rows += [["because", reason] for reason in plan["reasons"]]
    rows += [["beware", warning] for warning in plan["warnings"]]
    rows += [[f"not {each['what']}", each["why"]] for each in plan["rejected"]]
    return _table(None, rows)


def _precision(step: StepRecord, _run: RunRecord) -> str:
    return precision.section(step.detail, _table)


def _engine(step: StepRecord, _run: RunRecord) -> str:
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
    return _table(None, rows)


def _evaluation(step: StepRecord, run: RunRecord) -> str:
    found = step.detail
    verdict = found["verdict"]
    head = (
        f'<p><span class="badge {escape(verdict["outcome"])}">{escape(verdict["outcome"])}</span> '
        f"{escape(verdict['reason'])}</p>"
    )
    if "exact_match" not in found:
        return head
    shares = [{"skill": "all", **found["exact_match"]}, *found["skills"]]
    plot = intervals(
        [(s["skill"], s["low"], s["share"], s["high"]) for s in shares],
        run.spec.get("evaluation", {}).get("min_exact_match"),
    )
    rows = [
        [s["skill"], f"{s['correct']} of {s['n']}", f"{s['low']:.1%} to {s['high']:.1%}"]
        for s in shares
    ]
    perplexity = found.get("perplexity")
    told = f"{perplexity:.3f}" if perplexity else f"skipped: {found['perplexity_skipped']}"
    return (
        f"{head}{plot}{_table(['skill', 'right', '95 % interval (Wilson)'], rows)}"
        f"<p>Perplexity of the right answers: {escape(told)}</p>"
        f"{_comparison(found.get('comparison'))}{_wrong(found.get('wrong', []))}"
    )


def _comparison(found: Mapping[str, Any] | None) -> str:
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
    return f"<h3>Against {escape(found['against'])}</h3>{_table(None, rows)}"


def _wrong(items: Sequence[Mapping[str, Any]]) -> str:
    if not items:
        return ""
    rows = [[i["id"], i["skill"], i["expected"], i["answered"]] for i in items]
    table = _table(["item", "skill", "expected", "answered"], rows)
    return f"<details><summary>The first wrong answers</summary>{table}</details>"


def _scans(step: StepRecord, _run: RunRecord) -> str:
    rows = [[g["name"], g["outcome"], g["reason"]] for g in step.detail["gates"]]
    return _table(["gate", "outcome", "reason"], rows)


def _data_checks(step: StepRecord, _run: RunRecord) -> str:
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
    return _table(["set", "expectation", "outcome", "rows"], rows) + link


def _serving(step: StepRecord, _run: RunRecord) -> str:
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
    return _table(None, rows)


def _candidate(run: RunRecord) -> StepRecord | None:
    """The step that decided about a candidate, if one did."""
    return next((s for s in run.steps if s.step == "rollout" and "candidate" in s.detail), None)


def _rollout_title(run: RunRecord) -> str:
    step = _candidate(run)
    return f"Rollout of {escape(step.detail['candidate'])}" if step else "Rollout"


def _further(run: RunRecord, others: Sequence[RunRecord]) -> str:
    return "".join(
        f"<h2>{_rollout_title(other)}</h2>"
        f'<p class="sub">run {escape(other.run_id)}</p>{_rollout(step, other)}'
        for other in others
        if other.run_id != run.run_id and (step := _candidate(other)) is not None
    )


def _rollout(step: StepRecord, run: RunRecord) -> str:
    found = step.detail
    outcome = escape(found["outcome"])
    head = (
        f'<p><span class="badge {outcome}">{outcome.replace("_", " ")}</span> '
        f"{escape(_sentence(found))}</p>"
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
        f'{head}{plot}<p class="sub">{told}</p>{_decisions(found["curve"])}'
        f"{_rollout_numbers(found)}{_certificate(found['certificate'])}"
    )


_TIGHT = "\N{NO-BREAK SPACE}"
_CURVE_TOLD = (
    "E-values on a logarithmic scale: 1 says nothing, more is evidence. Dashed: the bounds. The "
    "look that takes the weakest metric over its bound is where the next phase begins, with proofs "
    "anew."
)


def _sentence(found: Mapping[str, Any]) -> str:
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


def _decisions(curve: Sequence[Mapping[str, Any]]) -> str:
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
    return _table(["time", "phase", "weight", "reason"], rows) if rows else ""


def _rollout_numbers(found: Mapping[str, Any]) -> str:
    rows = [
        ["decided after", _elapsed(found["decision_s"])],
        ["pairs of answers compared", f"{found['pairs']:,}"],
        ["users' requests", f"{found['user_requests_total']:,}"],
        ["of these failed", f"{found['user_requests_failed']:,}"],
        ["of these on the candidate", f"{found['user_requests_on_candidate']:,}"],
    ]
    return f"<h3>In numbers</h3>{_table(None, rows)}"


def _certificate(path: str) -> str:
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


def _registry(step: StepRecord, _run: RunRecord) -> str:
    found = step.detail
    rows = [
        ["model", f"{found['model']}, version {found['version']}"],
        ["MLflow run", found["run_id"]],
        ["weights", found["source_uri"]],
    ]
    return _table(None, rows)


def _digests(step: StepRecord, _run: RunRecord) -> str:
    found = step.detail
    rows = [[f["path"], f"{f['size_bytes']:,}", f["digest"]] for f in found["files"]]
    return f"<p>Root <code>{escape(found['root'])}</code></p>" + _table(
        ["file", "bytes", "digest"], rows
    )


def _table(head: Sequence[str] | None, rows: Sequence[Sequence[str]]) -> str:
    top = f"<tr>{''.join(f'<th>{escape(h)}</th>' for h in head)}</tr>" if head else ""
    body = "".join(f"<tr>{''.join(_cell(str(c)) for c in row)}</tr>" for row in rows)
    return f'<div class="scroll"><table>{top}{body}</table></div>'


def _cell(text: str) -> str:
    marked = {"passed": "ok", "failed": "no", "pass": "ok", "fail": "no"}.get(text)
    return f'<td class="{marked}">{text}</td>' if marked else f"<td>{escape(text)}</td>"
