"""Serving a registered version: the first one when it is ready, every later one by evidence."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any, NamedTuple, cast

from components.steps.context import Context, write_atomically
from components.steps.measuring import items_of
from components.steps.scoring import latency
from components.steps.verbs import catalog_of, checkpoint_of, spec_of
from penstock.core.errors import NotReady, RolledBack, ServingError
from penstock.core.settings import Settings
from penstock.core.spec import ModelSpec, Rollout
from serving import controller as acting
from serving import deploy as serving_versions
from serving import lease
from serving.cluster import Cluster
from serving.completer import Message
from serving.local import lifecycle
from serving.manifests import Release, service_name, version_of
from serving.rollout import events
from serving.rollout.decide import Stay
from serving.rollout.judge import Judge
from serving.rollout.record import Record, first_record
from serving.sources import local

_LOOK_S = 0.25
_WARM_UP_REQUESTS = 24
_CURVE_POINTS = 120


def deploy(context: Context, spec: str, version: str, checkpoint_path: str) -> str:
    """Serve the first version of a name; make a later one a candidate without traffic.

    Returns the URL that answers.
    """
    model, settings = spec_of(spec), context.settings
    manifest, folder = checkpoint_of(settings, checkpoint_path)
    if not lifecycle.status(settings).up:
        raise NotReady(
            "local cluster",
            reason="its supervisor or gateway does not run",
            waited_s=0,
            hint="penstock local up",
        )
    cluster, url = lifecycle.cluster(settings), lifecycle.url(settings)
    release = Release(int(version), folder.as_uri(), manifest.root)
    stable = acting.stable_of(cluster, model.name)
    service = service_name(model.name, release.version)
    if stable in ("", service):
        context.detail |= _first(context, model, release, url)
        served = catalog_of(settings).promote(model.name, release.version)
        context.detail["aliases"] = list(served.aliases)
        return url
    now = time.time()
    local.keep_prompts(settings, service, _prompts(model), model.evaluation.max_new_tokens)
    record = acting.begin(
        cluster,
        local.log(settings),
        model.name,
        first_record(service, stable, model.rollout, now),
        model.rollout,
    )
    serving_versions.propose(cluster, model, release)  # after it: a refusal leaves nothing behind
    context.detail |= {
        "service": service,
        "url": url,
        "version": release.version,
        "ready_s": None,
        "weights": acting.weights(record),
        "replaced": [],
        "latency": None,
    }
    return url


def rollout(context: Context, spec: str, version: str) -> str:
    """Promote, hold or roll the candidate back by evidence; return what became of it."""
    model, settings = spec_of(spec), context.settings
    cluster, service = lifecycle.cluster(settings), service_name(model.name, int(version))
    obj = cluster.get("HTTPRoute", model.name)
    record = acting.record_of(obj) if obj is not None else None
    if obj is None or record is None or record.candidate != service:
        context.detail |= {"outcome": "first", "reason": "nothing was served to compare with"}
        return "first"
    policy = acting.policy_of(obj)
    users = _Users(settings, model.name, record)
    record = _drive(context, model, policy, record)
    outcome = "promoted" if record.phase == "promoted" else "rolled_back"
    text = events.certificate(policy, record, local.log(settings).lines(model.name))
    path = settings.run_dir / "rollout" / "certificate.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, text)
    context.detail |= {
        "candidate": record.candidate,
        "stable": record.stable,
        "outcome": outcome,
        "reason": record.reason,
        "decision_s": record.entered_at - record.started_at,
        "pairs": record.evidence.pairs,
        **users.counted(),
        "certificate": str(path),
        "curve": curve(policy, events.verify(text)),
        "bounds": {"rollback": 1 / policy.false_rollback, "proof": 1 / policy.missed},
    }
    local.forget_prompts(settings, service)
    if outcome == "promoted":
        promoted(settings, model.name, service)
        return outcome
    raise RolledBack(
        f"{record.candidate} was rolled back: {record.reason}",
        hint=f"{record.stable} is served as before; penstock rollout certificate verify {path}",
    )


def promoted(settings: Settings, name: str, service: str) -> None:
    """Make the version of an InferenceService the registry's champion."""
    catalog_of(settings).promote(name, version_of(service))


def curve(policy: Rollout, replayed: list[events.Replayed]) -> list[dict[str, Any]]:
    """Return the evidence over time, thinned out: e-values as natural logarithms, and weights."""
    judge, looks = Judge(policy), [r for r in replayed if r.now]
    if not looks:
        return []
    stride = max(1, len(looks) // _CURVE_POINTS)
    moved = {i for i in range(1, len(looks)) if _place(looks[i]) != _place(looks[i - 1])}
    points = []
    for i, look in enumerate(looks):
        if i % stride and i not in moved and i != len(looks) - 1:
            continue
        verdict = judge.verdict(look.record.evidence)
        setting, multiple = events.proving(look.record, policy)
        points.append(
            {
                "s": round(look.now - looks[0].now, 3),
                "phase": look.record.phase,
                "held": look.record.held,
                "weight": look.record.weight,
                "rollback": verdict.rollback,
                "proofs": dict(verdict.proofs[setting, multiple] if setting else {}),
                "reason": look.record.reason,
            }
        )
    return points


class _Users:
    """What users noticed: the gateway's counters, from the rollout's beginning to its end."""

    def __init__(self, settings: Settings, name: str, record: Record) -> None:
        from serving.sources.live import LiveCounters

        self._counters = LiveCounters(
            lifecycle.url(settings), name, candidate=record.candidate, stable=record.stable
        )
        self._since = self._counters.read(None).cursor

    def counted(self) -> dict[str, int]:
        """Return requests of users: all, failed ones, and those the candidate got."""
        read = self._counters.read(self._since)
        candidate, stable = read.candidate, read.stable
        self._counters.close()
        return {
            "user_requests_total": candidate.requests + stable.requests,
            "user_requests_failed": candidate.errors + stable.errors,
            "user_requests_on_candidate": candidate.requests,
        }


def _drive(context: Context, model: ModelSpec, policy: Rollout, record: Record) -> Record:
    """Look until the rollout is over and what lost is gone; return the last record."""
    settings = context.settings
    cluster, never = lifecycle.cluster(settings), threading.Event()
    owner = f"run-{settings.run_id}"
    world = local.build(settings, model.name, policy)
    controller = acting.Controller(cluster, local.log(settings), world, owner)
    try:
        while True:
            made = controller.look(model.name)
            record = made.record if made is not None else _recorded(cluster, model.name)
            if record.over and (made is None or isinstance(made.action, Stay)):
                return record
            unit = f"pairs, {record.evidence.requests} live, {record.phase} {record.weight} %"
            context.progress(record.evidence.pairs, max(1, record.evidence.pairs), unit)
            never.wait(_LOOK_S)
    finally:
        world.close()
        lease.release(cluster, model.name, owner)


def _prompts(model: ModelSpec) -> list[Any]:
    from serving.sources.replay import Prompt

    asked = items_of(Path(model.data.evaluate)) if model.data.evaluate else []
    return [Prompt(tuple(i.conversation), i.answer) for i in asked]


class _Place(NamedTuple):
    phase: str
    step: int
    held: str


def _place(look: events.Replayed) -> _Place:
    return _Place(look.record.phase, look.record.step, look.record.held)


def _recorded(cluster: Cluster, name: str) -> Record:
    obj = cluster.get("HTTPRoute", name)
    record = acting.record_of(obj) if obj is not None else None
    if record is None:
        raise ServingError(f"{name}: its route is gone", hint="penstock local status")
    return record


def _first(context: Context, model: ModelSpec, release: Release, url: str) -> dict[str, Any]:
    """Serve a version when it is ready, and ask it through the gateway, as users will."""
    deployed = serving_versions.deploy(
        lifecycle.cluster(context.settings),
        model,
        release,
        observed=lambda: lifecycle.observed(context.settings, model.name),
        on_wait=lambda waited: context.progress(waited, model.rollout.ready_timeout_s, "s"),
    )
    return {
        "service": deployed.service,
        "url": url,
        "version": release.version,
        "ready_s": deployed.ready_s,
        "weights": deployed.weights,
        "replaced": list(deployed.replaced),
        "latency": _warm_up(url, model),
    }


def _warm_up(url: str, model: ModelSpec) -> dict[str, Any] | None:
    from serving.endpoint import EndpointCompleter

    asked = items_of(Path(model.data.evaluate))[:_WARM_UP_REQUESTS] if model.data.evaluate else []
    conversations = [i.conversation for i in asked] or [[{"role": "user", "content": "Hello"}]]
    completer = EndpointCompleter(url, model.name, concurrency=2)
    try:
        answers = completer.complete(
            cast("list[list[Message]]", conversations),
            max_new_tokens=min(16, model.evaluation.max_new_tokens),
        )
    except ServingError as problem:
        raise ServingError(
            f"{model.name} is served but does not answer through the gateway: {problem}",
            hint="penstock local status shows the log",
        ) from problem
    finally:
        completer.close()
    return latency([a.ttft_s for a in answers], [a.e2e_s for a in answers])
