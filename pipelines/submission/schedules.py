"""Recurring runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pipelines.submission import reading
from pipelines.submission.errors import Missing
from pipelines.submission.once import create_once
from pipelines.submission.paging import listed, where
from pipelines.submission.patience import Tries
from pipelines.submission.refusals import Ask
from pipelines.submission.transport import Transport
from pipelines.submission.values import NewRecurringRun, RecurringRun

_SERVICE = "RecurringRunServiceApi"
_METHOD = "recurring_run_service_"


class Schedules:
    """The recurring runs of one namespace."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def create(self, new: NewRecurringRun) -> RecurringRun:
        """Create a recurring run, once, whatever happens to the answer."""

        def send(tries: Tries) -> RecurringRun:
            body = _body(new, self._transport.settings.service_account)
            return reading.recurring_run(
                self._transport.attempt(
                    Ask("create", f"recurring run {new.name}", "once"),
                    _SERVICE,
                    f"{_METHOD}create_recurring_run",
                    tries=tries,
                    recurring_run=body,
                )
            )

        return create_once(
            self._transport.patience,
            send=send,
            find=lambda tries: self._found(tries, new.name, new.experiment_id)[::-1],
            drop=lambda second: self.delete(second.recurring_run_id),
            doubt="penstock schedule list",
        )

    def get(self, recurring_run_id: str) -> RecurringRun | None:
        """Return a recurring run; None if there is none."""
        ask = Ask("read", f"recurring run {recurring_run_id}")
        method = f"{_METHOD}get_recurring_run"
        try:
            return reading.recurring_run(
                self._transport.call(ask, _SERVICE, method, recurring_run_id=recurring_run_id)
            )
        except Missing:
            return None

    def named(self, name: str, *, experiment_id: str = "") -> RecurringRun | None:
        """Return the recurring run of this name, the oldest if there are several; None if none."""
        found = self._found(None, name, experiment_id)
        return found[-1] if found else None

    def list(self, *, experiment_id: str = "") -> tuple[RecurringRun, ...]:
        """Return every recurring run of the namespace, or of an experiment; the newest first."""
        return tuple(self._found(None, "", experiment_id))

    def enable(self, recurring_run_id: str) -> None:
        """Let it fire; nothing changes if it does already."""
        self._change("enable", recurring_run_id)

    def disable(self, recurring_run_id: str) -> None:
        """Let it fire no more; runs in flight go on."""
        self._change("disable", recurring_run_id)

    def delete(self, recurring_run_id: str, *, keep_runs: bool = True) -> None:
        """Delete it; one that is gone already is fine.

        Args:
            recurring_run_id: Which one.
            keep_runs: Whether runs in flight that it made go on (propagation policy ORPHAN, which
                servers know since 2.16). Without it, Kubernetes ends them, and the server shows
                them as running for ever: disable it and wait for them first.
        """
        policy: dict[str, Any] = {"propagation_policy": "ORPHAN"} if keep_runs else {}
        try:
            self._change("delete", recurring_run_id, **policy)
        except Missing:
            return

    def _change(self, verb: str, recurring_run_id: str, **options: Any) -> None:
        self._transport.call(
            Ask(verb, f"recurring run {recurring_run_id}", "same"),
            _SERVICE,
            f"{_METHOD}{verb}_recurring_run",
            recurring_run_id=recurring_run_id,
            **options,
        )

    def _found(self, tries: Tries | None, name: str, experiment_id: str) -> Sequence[RecurringRun]:
        scope: dict[str, Any] = (
            {"experiment_id": experiment_id}
            if experiment_id
            else {"namespace": self._transport.namespace}
        )
        bodies = listed(
            lambda **page: self._transport.call(
                Ask("list", "recurring runs"),
                _SERVICE,
                f"{_METHOD}list_recurring_runs",
                tries=tries,
                filter=where(display_name=name),
                sort_by="created_at desc",
                **scope,
                **page,
            ),
            "recurringRuns",
        )
        return [reading.recurring_run(body) for body in bodies]


def _body(new: NewRecurringRun, service_account: str) -> Any:
    import kfp_server_api as api

    when = new.trigger
    bounds = {"start_time": when.start, "end_time": when.end}
    return api.V2beta1RecurringRun(
        display_name=new.name,
        description=new.description or None,
        experiment_id=new.experiment_id,
        pipeline_version_reference=api.V2beta1PipelineVersionReference(pipeline_id=new.pipeline_id),
        runtime_config=api.V2beta1RuntimeConfig(parameters=dict(new.parameters)),
        service_account=new.service_account or service_account or None,
        trigger=api.V2beta1Trigger(
            cron_schedule=api.V2beta1CronSchedule(cron=when.cron, **bounds) if when.cron else None,
            periodic_schedule=None
            if when.cron
            else api.V2beta1PeriodicSchedule(interval_second=str(when.interval_s), **bounds),
        ),
        mode=api.RecurringRunMode.ENABLE if new.enabled else api.RecurringRunMode.DISABLE,
        max_concurrency=str(new.max_concurrency),
        no_catchup=not new.catch_up,
    )
