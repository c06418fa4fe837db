"""The report of a run, or of one of its steps: one HTML file, also for what failed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from typing import Any

from components.steps import training_report
from components.steps.fitting import HTML_BYTES, Detail, fitting, shortened
from components.steps.links import tracked
from components.steps.page import link, page
from components.steps.plots import Bar, timeline
from components.steps.sections import (
    LEAD,
    SECTIONS,
    candidate,
    rollout,
    rollout_title,
    sentence,
)
from penstock.core.runs import Headline, RunRecord, StepRecord

_CUT = '<p class="sub">The rest is too long for a page: it lies in the record of the run.</p>'
_LINE = 2000
"""Most characters of a headline."""

_LINKED = ("rollout", "deploy", "register", "train", "detect_changes")
"""Steps whose version or run is the one that a run is about; the first that is there."""


def render(
    run: RunRecord,
    others: Sequence[RunRecord] = (),
    tracking_uri: str = "",
    most: int = HTML_BYTES,
) -> str:
    """Return the page of a run: its headline first, then everything that its steps left.

    Args:
        run: What it is about.
        others: Further runs, whose rollouts follow; those without a candidate have none.
        tracking_uri: Of MLflow, for a link.
        most: Bytes that the page may have.
    """
    began = datetime.fromtimestamp(run.started_at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    source = escape(str(run.spec.get("source", "")))
    under = (
        f'<p class="sub">run {escape(run.run_id)} · {began} · {run.wall_s:.1f} s<br>{source}</p>'
        f"{link(_address(run, tracking_uri))}{_failure(run)}"
    )
    environment = ", ".join(f"{k} {v}" for k, v in run.environment.items())

    def drawn(detail: Detail) -> str:
        shown = [_shortened(each, detail) for each in (run, *others)]
        body = (
            f"<h2>Timeline</h2>{_timeline(shown[0])}{_sections(shown[0], detail)}"
            f"{_further(shown[0], shown[1:], detail)}"
            f'<p class="sub">{escape(environment)}</p>'
        )
        return page(run.name, headline, under, body)

    headline = _line(run.headline)
    return fitting(drawn, page(run.name, headline, under, _CUT), most)


def render_step(
    step: StepRecord,
    spec: Mapping[str, Any],
    run_id: str,
    tracking_uri: str = "",
    most: int = HTML_BYTES,
) -> str:
    """Return the page of one step, as KFP's UI shows it beside its task.

    Args:
        step: Its record.
        spec: What the step was told; empty where it was not told.
        run_id: Of the run that it belongs to.
        tracking_uri: Of MLflow, for a link.
        most: Bytes that the page may have.
    """
    name = str(spec.get("name", ""))
    section = next(each for each in SECTIONS if each.step == step.step)
    run = RunRecord(
        run_id=run_id,
        name=name,
        started_at=step.started_at,
        wall_s=step.seconds,
        outcome="done" if step.failure is None else "failed",
        spec=dict(spec),
        steps=(step,),
    )
    of = f"{escape(name)} · " if name else ""
    under = (
        f'<p class="sub">{of}run {escape(run_id)} · {step.seconds:.1f} s</p>'
        f"{link(tracked(tracking_uri, name, step.detail))}{_failure(run)}"
    )

    def drawn(detail: Detail) -> str:
        shown = _shortened(run, detail)
        body = section.drawn(shown.steps[0], shown, detail.tables)
        said = body.startswith(LEAD)  # by the headline
        return page(title, headline, under, body.partition("</p>")[2] if said else body)

    headline = _line(headline_of(run))
    rolled = step.detail.get("candidate")
    title = f"{section.title} of {rolled}" if rolled else section.title
    return fitting(drawn, page(title, headline, under, _CUT), most)


def headline_of(run: RunRecord) -> Headline:
    """Return what came of a run of one step: also where that step decides nothing about a run."""
    step, said = run.steps[0], run.headline
    if step.failure is not None or not step.detail:
        return said
    if step.step == "rollout" and "outcome" in step.detail:
        return Headline(decision=said.decision, reason=sentence(step.detail))
    return _own(step.detail) if said.decision == "done" else said


def _own(found: Mapping[str, Any]) -> Headline:
    if "gates" in found:
        told = f"{len(found['gates']):,} gates; licence: {found.get('licence') or 'none named'}"
        return Headline(decision="passed", reason=told)
    if "suites" in found:
        checked = sum(len(suite["expectations"]) for suite in found["suites"])
        told = f"{checked:,} expectations on {len(found['suites'])} data sets"
        return Headline(decision="passed" if checked else "skipped", reason=told)
    if "curve" in found and "strategy" in found:
        decision = "found" if found["found"] else "trained"
        return Headline(decision=decision, reason=training_report.headline(found))
    return Headline(decision=str(found.get("outcome", "done")), reason=str(found.get("reason", "")))


def _line(said: Headline) -> Headline:
    """Return a headline that is a line: what was said can have any length."""
    return Headline(decision=said.decision, reason=shortened(said.reason, _LINE))


def _shortened(run: RunRecord, detail: Detail) -> RunRecord:
    steps = tuple(
        step.model_copy(update={"detail": shortened(step.detail, detail.characters)})
        for step in run.steps
    )
    return run.model_copy(update={"steps": steps})


def _address(run: RunRecord, tracking_uri: str) -> str:
    steps = {step.step: step.detail for step in run.steps}
    found = (tracked(tracking_uri, run.name, steps.get(name, {})) for name in _LINKED)
    return next((address for address in found if address), "")


def _sections(run: RunRecord, detail: Detail) -> str:
    steps = {step.step: step for step in run.steps}
    titles = {"rollout": rollout_title(run)}
    return "".join(
        f"<h2>{titles.get(each.step, each.title)}</h2>{drawn}"
        for each in SECTIONS
        if each.step in steps and (drawn := each.drawn(steps[each.step], run, detail.tables))
    )


def _further(run: RunRecord, others: Sequence[RunRecord], detail: Detail) -> str:
    return "".join(
        f"<h2>{rollout_title(other)}</h2>"
        f'<p class="sub">run {escape(other.run_id)}</p>{rollout(step, other, detail.tables)}'
        for other in others
        if other.run_id != run.run_id and (step := candidate(other)) is not None
    )


def _failure(run: RunRecord) -> str:
    """Return what the headline leaves out: further lines, and what to do next."""
    failed = run.failure
    if failed is None or failed.failure is None:
        return ""
    rest = failed.failure.message.partition("\n")[2]
    hint = f"Next: {failed.failure.hint}" if failed.failure.hint else ""
    told = "\n".join(part for part in (rest, hint) if part)
    return f'<p class="failure">{escape(shortened(told, _LINE))}</p>' if told else ""


def _timeline(run: RunRecord) -> str:
    return timeline(
        [
            Bar(s.step, s.started_at, s.started_at + s.seconds, f"{s.seconds:.1f} s", s.outcome)
            for s in run.steps
        ]
    )
