"""Serves what was served before: ends a rollout that goes on, or undoes the last promotion."""

from __future__ import annotations

from components.steps import rollout as steps
from components.steps.context import Context
from components.steps.verbs import spec_of
from penstock.core.errors import RolledBack
from serving import controller as acting
from serving import deploy
from serving.manifests import version_of
from serving.targets.choose import target_of


def go_back(context: Context, spec: str, reason: str) -> str:
    """Return the InferenceService that is served afterwards.

    While a rollout goes on, its candidate is rolled back and what was served stays. Otherwise the
    version before the last promotion is served again, as soon as it is ready.

    Args:
        context: Of the step.
        spec: The document `model.yaml`, as JSON.
        reason: Why, in a person's words.
    """
    model, settings = spec_of(spec), context.settings
    target = target_of(settings, model.target)
    obj = target.cluster.get(target.traffic.carrier, model.name)
    record = acting.record_of(obj) if obj is not None else None
    if record is not None and not record.over:
        acting.command(target.cluster, target.log, model.name, "rollback", target.traffic)
        try:
            steps.rollout(context, spec, str(version_of(record.candidate)))
        except RolledBack:
            context.detail["asked"] = reason  # the rest is told by the rollout
        return record.stable
    site = deploy.Site(
        target.cluster,
        lambda: target.observed(model.name),
        target.traffic,
        target.why,
        hint=target.hint,
    )
    done = deploy.revert(site, model.name, model.rollout.ready_within_s)
    steps.promoted(settings, model.name, done.service)
    context.detail |= {
        "outcome": "reverted",
        "reason": f"{done.service} is served again: {reason}",
        "service": done.service,
        "replaced": list(done.replaced),
    }
    return done.service
