"""Serving a registered version: the first one when it is ready, every later one by evidence."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from components.steps.context import Context, write_atomically
from components.steps.measuring import items_of
from components.steps.scoring import latency
from components.steps.verbs import catalog_of, checkpoint_of, spec_of
from penstock.core.errors import (
    ConfigurationError,
    LogCut,
    RolledBack,
    ServingError,
    Unproven,
)
from penstock.core.manifest import Manifest
from penstock.core.settings import Settings
from penstock.core.spec import ModelSpec, Rollout
from registry.catalog import PASSPORT
from registry.publish import publish
from serving import controller as acting
from serving import deploy as serving_versions
from serving import lease
from serving.cluster import Object
from serving.completer import Completion, Message
from serving.gitops import steps as rendered_steps
from serving.gpus.surge import Beside, Refuse
from serving.kube.errors import Unreachable
from serving.manifests import Release, service_name, version_of
from serving.rollout import events
from serving.rollout.judge import Judge
from serving.rollout.loan import Loan
from serving.rollout.record import Record, first_record
from serving.rollout.step import Step
from serving.runtimes.launch import patient
from serving.targets.choose import target_of
from serving.targets.target import Target

if TYPE_CHECKING:
    from serving.targets.rendered import RenderedTarget

_USERS_S = 5.0
"""Between two readings of what users noticed."""

_OUTAGE_S = 900.0
"""How long a cluster may not answer while a rollout goes on: upgrading a control plane takes
minutes."""

_LOSER_S = 120.0
"""How long the gateway may take to tell that what lost has no users; `penstock controller` removes
what is left after it."""

_WARM_UP_REQUESTS = 24
_ANSWERS_S, _AGAIN_S = 15.0, 0.5
"""A gateway says that it has taken a route over shortly before its proxies have."""

_CURVE_POINTS = 120


def deploy(context: Context, spec: str, resolved: str, version: str, checkpoint_path: str) -> str:
    """Serve the first version of a name; make a later one a candidate without traffic.

    Returns the URL that answers.
    """
    model, settings = spec_of(spec, resolved), context.settings
    manifest, folder = checkpoint_of(settings, checkpoint_path)
    model = patient(model, manifest.size_bytes)
    target = target_of(settings, model.target)
    target.require(model)
    if settings.render is not None:
        cast("RenderedTarget", target).take_up(model.name)
    cluster, door = target.cluster, target.door(model.name)
    stable = acting.stable_of(cluster, model.name, target.traffic)
    service = service_name(model.name, int(version))
    loan = loan_for(context, target, model, service, stable)
    uri = _brought(context, target, model.name, int(version), (manifest, folder))
    release = Release(int(version), uri, manifest.root, manifest)
    if stable in ("", service):
        first = _first if settings.render is None else _first_rendered
        context.detail |= first(context, target, model, release)
        served = catalog_of(settings).promote(model.name, release.version)
        context.detail["aliases"] = list(served.aliases)
        return door.url
    serving_versions.rehearse(cluster, model, release, target.traffic)
    now = time.time()
    target.keep_prompts(service, _prompts(model), model.evaluation.max_new_tokens)
    first_one = first_record(service, stable, model.rollout, now)
    if loan is not None:
        first_one = replace(first_one, reason=context.detail.get("devices", first_one.reason))
    record = acting.begin(
        cluster,
        target.log,
        model.name,
        first_one,
        model.rollout,
        traffic=target.traffic,
        loan=loan,
    )
    # after it: a refusal leaves nothing behind
    serving_versions.propose(cluster, model, release, target.traffic, loan=loan)
    context.detail |= {
        "service": service,
        "url": door.url,
        "version": release.version,
        "ready_s": None,
        "weights": acting.weights(record),
        "replaced": [],
        "latency": None,
    }
    return door.url


def loan_for(
    context: Context, target: Target, model: ModelSpec, service: str, stable: str
) -> Loan | None:
    """Return what the stable version lends so that a candidate finds its devices; None: nothing.

    Raises:
        ConfigurationError: There is no room, and the policy allows nothing else; nothing changed.
    """
    cluster, traffic = target.cluster, target.traffic
    obj = cluster.get(traffic.carrier, model.name)
    record = acting.record_of(obj) if obj is not None else None
    if obj is not None and record is not None and not record.over and record.candidate == service:
        return acting.loan_of(obj)  # begun by a run that was interrupted
    if cluster.get(traffic.served, service) is not None:
        return None  # it has its devices
    decided = target.surge(model, service, stable)
    if isinstance(decided, Refuse):
        raise ConfigurationError(decided.reason, hint=decided.change)
    context.detail["devices"] = decided.told
    return None if isinstance(decided, Beside) else decided.loan


def _brought(
    context: Context, target: Target, name: str, version: int, stored: tuple[Manifest, Path]
) -> str:
    """Bring a version's checkpoint to where it is served from; return its URI there."""
    (manifest, folder), catalog = stored, catalog_of(context.settings)
    precision = catalog.document(catalog.version(name, version), PASSPORT)["precision"]
    as_it_came = precision["parent_root"] == str(manifest.root)
    where = target.storage_for(manifest, as_it_came=as_it_came)
    if not where.startswith(("s3://", "pvc://")):
        return where or folder.as_uri()
    return publish(
        folder,
        manifest,
        where,
        on_progress=lambda done, total: context.progress(done, total, "bytes"),
    )


def rollout(context: Context, spec: str, version: str) -> str:
    """Promote, hold or roll the candidate back by evidence; return what became of it."""
    model, settings = spec_of(spec), context.settings
    target, service = target_of(settings, model.target), service_name(model.name, int(version))
    context.detail["version"] = int(version)
    obj = target.cluster.get(target.traffic.carrier, model.name)
    record = acting.record_of(obj) if obj is not None else None
    if obj is None or record is None or record.candidate != service:
        context.detail |= {"outcome": "first", "reason": "nothing was served to compare with"}
        return "first"
    if settings.render is not None:
        again = f"penstock rollout step {model.name}{target.options}"
        told = f"it is a candidate in {settings.render}: commit, then {again}"
        context.detail |= {"outcome": "rendered", "reason": told}
        return "rendered"
    policy = acting.policy_of(obj)
    users = _Users(target, model.name, record)
    record = drive(context, target, model.name, policy, users)
    outcome = "promoted" if record.phase == "promoted" else "rolled_back"
    if outcome == "promoted":  # before all else: whatever comes now, this is what users have
        promoted(settings, model.name, service)
    target.forget_prompts(service)
    certificate, replayed = certified(settings, target, model.name, obj, record)
    context.detail |= {
        "candidate": record.candidate,
        "stable": record.stable,
        "outcome": outcome,
        "reason": record.reason,
        "decision_s": record.entered_at - record.started_at,
        "pairs": record.evidence.pairs,
        **users.counted(),
        "certificate": certificate,
        "curve": curve(policy, replayed),
        "bounds": {"rollback": 1 / policy.false_rollback, "proof": 1 / policy.missed},
    }
    if outcome == "promoted":
        return outcome
    lost = Unproven if events.undecided(replayed) else RolledBack
    proof = f"; penstock rollout certificate verify {certificate}" if certificate else ""
    raise lost(
        f"{record.candidate} was rolled back: {record.reason}",
        hint=f"{record.stable} is served as before{proof}",
    )


def certified(
    settings: Settings, target: Target, name: str, obj: Object, record: Record
) -> tuple[str, list[events.Replayed]]:
    """Write the certificate; return its path and what it proves, or nothing: the log was cut."""
    try:
        text = events.certificate(acting.policy_text(obj), record, target.log.lines(name))
    except LogCut:
        return "", []
    path = settings.run_dir / "rollout" / "certificate.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, text)
    return str(path), events.verify(text)


def promoted(settings: Settings, name: str, service: str) -> bool:
    """Make the version of an InferenceService the registry's champion.

    Returns whether it is: one that was adopted is not in the registry.
    """
    version = version_of(service)
    if service != service_name(name, version):
        return False
    catalog_of(settings).promote(name, version)
    return True


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
    """What users noticed, since this was made.

    Read again and again: on a cluster, what a pod counted goes with the pod.
    """

    def __init__(self, target: Target, name: str, record: Record) -> None:
        self._counters = target.counters(name, record.candidate, record.stable)
        self._cursor: str | None = None
        self._total = self._failed = self._on_candidate = 0
        self._add()

    def look(self) -> None:
        """Read the counters if it is time to."""
        if time.monotonic() - self._read_at >= _USERS_S:
            self._add()

    def counted(self) -> dict[str, int]:
        """Return requests of users: all, failed ones, and those the candidate got."""
        self._add()
        self._counters.close()
        return {
            "user_requests_total": self._total,
            "user_requests_failed": self._failed,
            "user_requests_on_candidate": self._on_candidate,
        }

    def _add(self) -> None:
        self._read_at = time.monotonic()
        try:
            read = self._counters.read(self._cursor)
        except ServingError:
            return  # the next reading covers it
        self._cursor = read.cursor
        self._total += read.candidate.requests + read.stable.requests
        self._failed += read.candidate.errors + read.stable.errors
        self._on_candidate += read.candidate.requests


def drive(
    context: Context,
    target: Target,
    name: str,
    policy: Rollout,
    users: _Users,
    *,
    outage_s: float = _OUTAGE_S,
) -> Record:
    """Look until the rollout is over and what lost is gone; return the last record.

    A cluster that does not answer for a while is asked again: what was recorded is not lost.
    """
    cluster, never = target.cluster, threading.Event()
    owner = f"run-{context.settings.run_id}"
    world = target.world(name, policy)
    controller = acting.Controller(cluster, target.log, world, owner, traffic=target.traffic)
    answered = time.monotonic()
    try:
        while True:
            try:
                made = controller.look(name)
                record, left = _state(target, name, made)
            except Unreachable as problem:
                if time.monotonic() - answered > outage_s:
                    raise
                context.progress(0, 1, f"{problem}")
                never.wait(target.look_s)
                continue
            answered = time.monotonic()
            users.look()
            if record.over and (not left or time.time() - record.entered_at > _LOSER_S):
                return record
            held = f", held: {record.held}" if record.held else ""
            unit = f"pairs, {record.evidence.requests} live, {record.phase} {record.weight} %{held}"
            context.progress(record.evidence.pairs, max(1, record.evidence.pairs), unit)
            never.wait(target.look_s)
    finally:
        world.close()
        with suppress(Unreachable):  # it runs out by itself
            lease.release(cluster, name, owner)


def _state(target: Target, name: str, made: Step | None) -> tuple[Record, bool]:
    """Return the record, and whether what lost has yet to be removed, by whomever."""
    if made is not None and not made.record.over:
        return made.record, False
    obj = target.cluster.get(target.traffic.carrier, name)
    record = acting.record_of(obj) if obj is not None else None
    if obj is None or record is None:
        raise ServingError(f"{name}: its route is gone", hint=target.hint)
    there = acting.leftover(target.cluster, target.traffic, obj, record) is not None
    return record, record.over and there


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


def _first(context: Context, target: Target, model: ModelSpec, release: Release) -> dict[str, Any]:
    """Serve a version when it is ready, and ask it as users will."""
    site = serving_versions.Site(
        target.cluster,
        lambda: target.observed(model.name),
        target.traffic,
        target.why,
        lambda waited: context.progress(waited, model.rollout.ready_within_s, "s"),
        target.hint,
    )
    deployed = serving_versions.deploy(site, model, release)
    return {
        "service": deployed.service,
        "url": target.door(model.name).url,
        "version": release.version,
        "ready_s": deployed.ready_s,
        "weights": deployed.weights,
        "replaced": list(deployed.replaced),
        "latency": _warm_up(target, model),
    }


def _first_rendered(
    context: Context,  # noqa: ARG001 - as `_first`, which waits
    target: Target,
    model: ModelSpec,
    release: Release,
) -> dict[str, Any]:
    """Write a version and its route down; whoever applies them sees when it is ready."""
    service = rendered_steps.first(target.cluster, model, release, target.traffic)
    return {
        "service": service,
        "url": target.door(model.name).url,
        "version": release.version,
        "ready_s": None,
        "weights": {service: 100},
        "replaced": [],
        "latency": None,
    }


def _warm_up(target: Target, model: ModelSpec) -> dict[str, Any] | None:
    from serving.endpoint import EndpointCompleter

    asked = items_of(Path(model.data.evaluate))[:_WARM_UP_REQUESTS] if model.data.evaluate else []
    conversations = [i.conversation for i in asked] or [[{"role": "user", "content": "Hello"}]]
    door = target.door(model.name)
    completer = EndpointCompleter(door.url, model.name, headers=door.headers, concurrency=2)

    def ask() -> list[Completion]:
        return completer.complete(
            cast("list[list[Message]]", conversations),
            max_new_tokens=min(16, model.evaluation.max_new_tokens),
        )

    try:
        answers = _patiently(ask)
    except ServingError as problem:
        raise ServingError(
            f"{model.name} is served but does not answer through the gateway: {problem}",
            hint=f"{target.hint} shows more",
        ) from problem
    finally:
        completer.close()
    return latency([a.ttft_s for a in answers], [a.e2e_s for a in answers])


def _patiently(ask: Callable[[], list[Completion]]) -> list[Completion]:
    """Ask again for a while when it fails."""
    never, deadline = threading.Event(), time.monotonic() + _ANSWERS_S
    while True:
        try:
            return ask()
        except ServingError:
            if time.monotonic() >= deadline:
                raise
        never.wait(_AGAIN_S)
