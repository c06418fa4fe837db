"""At the end of a run no candidate keeps users while nobody looks after it."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from contextlib import suppress

from components.steps import rollout
from components.steps.context import read_records, step
from components.steps.verbs import spec_of
from penstock.core.errors import LifecycleError, RolledBack, ServingError
from penstock.core.settings import Settings
from serving import controller as acting
from serving import lease
from serving.manifests import service_name, version_of
from serving.targets.choose import target_of
from serving.targets.target import Target

_AGAIN_S = 5.0
_LOOK_S = 1.0


def settle(env: Mapping[str, str], spec: str, within_s: float = 120.0) -> bool:
    """Roll this run's candidate back if its rollout goes on and nobody looks after it.

    A task that was killed, or ran out of time, leaves its candidate where it was: some of users'
    answers come from it, and nobody looks at them. Where a controller does, it is left to that.

    Args:
        env: The environment, for the settings.
        spec: The document `model.yaml`, as JSON.
        within_s: How long a cluster that cannot be reached is asked again.

    Returns whether the record of `rollout` says so now, or what kept it from that.
    """
    settings = Settings.from_env(env)
    service = _candidate(settings, spec)
    if not service or settings.render is not None:
        return False
    never, ends_at = threading.Event(), time.monotonic() + within_s
    while True:
        try:
            return _settle(settings, env, spec, service)
        except LifecycleError as problem:
            if time.monotonic() >= ends_at:
                _tell(env, service, problem)
                return True
        never.wait(_AGAIN_S)


def _settle(settings: Settings, env: Mapping[str, str], spec: str, service: str) -> bool:
    model = spec_of(spec)
    target = target_of(settings, model.target)
    if not _goes_on(target, model.name, service) or _kept(
        target, model.name, f"run-{settings.run_id}"
    ):
        return False
    with suppress(_Abandoned), step("rollout", env) as context:
        acting.command(target.cluster, target.log, model.name, "abandon", target.traffic)
        try:
            rollout.rollout(context, spec, str(version_of(service)))
        except RolledBack as problem:
            raise _Abandoned(str(problem), hint="run it again") from problem
    return True


class _Abandoned(ServingError):
    """It was rolled back, and not by evidence: the same version may be tried again."""


def _tell(env: Mapping[str, str], service: str, problem: LifecycleError) -> None:
    with suppress(ServingError), step("rollout", env):
        raise ServingError(
            f"whether {service} has users is not known, nor whether anybody looks: {problem}",
            hint="penstock rollout status, then: penstock rollout rollback",
        ) from problem


def _candidate(settings: Settings, spec: str) -> str:
    """Return the name of the version that this run registered; empty if it came to none."""
    for record in read_records(settings.run_dir / "steps"):
        if record.step == "register" and "version" in record.detail:
            return service_name(spec_of(spec).name, record.detail["version"])
    return ""


def _goes_on(target: Target, name: str, service: str) -> bool:
    """Return whether the rollout of this candidate is not over."""
    obj = target.cluster.get(target.traffic.carrier, name)
    record = acting.record_of(obj) if obj is not None else None
    return record is not None and not record.over and record.candidate == service


def _kept(target: Target, name: str, mine: str) -> bool:
    """Return whether somebody else looks after it; who would has time to take its lease."""
    never, ends_at = threading.Event(), time.monotonic() + lease.DURATION_S + lease.RENEW_S
    while time.monotonic() < ends_at:
        if lease.holder(target.cluster, name, time.time()) not in ("", mine):
            return True
        never.wait(_LOOK_S)
    return False
