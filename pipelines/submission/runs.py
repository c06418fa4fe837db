"""Runs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from penstock.core.errors import LifecycleError
from pipelines.submission import reading
from pipelines.submission.errors import Missing, Rejected, Unavailable
from pipelines.submission.once import create_once
from pipelines.submission.paging import listed, where
from pipelines.submission.patience import Tries
from pipelines.submission.refusals import Ask, unsure
from pipelines.submission.states import over
from pipelines.submission.transport import Transport
from pipelines.submission.values import NewRun, Run

_SERVICE = "RunServiceApi"


class Runs:
    """The runs of one namespace."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def create(self, new: NewRun) -> Run:
        """Create a run, exactly one, whatever happens to requests and answers.

        A second one, which a request made that was thought lost, is terminated.
        """

        def send(tries: Tries) -> Run:
            ask = Ask("create", f"run {new.name}", "once")
            body = _body(new, self._transport.settings.service_account)
            return reading.run(
                self._transport.attempt(
                    ask, _SERVICE, "run_service_create_run", tries=tries, run=body
                )
            )

        def find(tries: Tries) -> Sequence[Run]:
            found = self._found(tries, name=new.name, experiment_id=new.experiment_id)
            return found[::-1]

        return create_once(
            self._transport.patience,
            send=send,
            find=find,
            drop=lambda second: self.terminate(second.run_id),
            doubt=f"penstock runs list --name {new.name}",
        )

    def get(self, run_id: str) -> Run:
        """Return a run, with its tasks; `Missing` if there is none."""
        ask = Ask("read", f"run {run_id}")
        return reading.run(
            self._transport.call(ask, _SERVICE, "run_service_get_run", run_id=run_id)
        )

    def list(
        self,
        *,
        experiment_id: str = "",
        name: str = "",
        recurring_run_id: str = "",
        limit: int = 50,
    ) -> tuple[Run, ...]:
        """Return runs, the newest first.

        Args:
            experiment_id: Those of an experiment; all of the namespace without one.
            name: Those of exactly this name.
            recurring_run_id: Those that this recurring run made.
            limit: At most so many.
        """
        found = self._found(
            None,
            name=name,
            experiment_id=experiment_id,
            recurring_run_id=recurring_run_id,
            limit=limit,
        )
        return tuple(found)

    def _found(
        self,
        tries: Tries | None,
        *,
        name: str = "",
        experiment_id: str = "",
        recurring_run_id: str = "",
        limit: int = 50,
    ) -> Sequence[Run]:
        wanted = {"display_name": name, "recurring_run_id": recurring_run_id}
        scope: dict[str, Any] = (
            {"experiment_id": experiment_id}
            if experiment_id
            else {"namespace": self._transport.namespace}
        )
        bodies = listed(
            lambda **page: self._transport.call(
                Ask("list", f"runs {name}".strip()),
                _SERVICE,
                "run_service_list_runs",
                tries=tries,
                filter=where(**wanted),
                sort_by="created_at desc",
                **scope,
                **page,
            ),
            "runs",
            limit,
        )
        return [reading.run(body) for body in bodies]

    def terminate(self, run_id: str) -> Run:
        """Ask for a run's end and return it; a run that has ended is returned as it is."""
        ask = Ask("cancel", f"run {run_id}", "same")
        try:
            self._transport.call(ask, _SERVICE, "run_service_terminate_run", run_id=run_id)
        except Rejected:
            found = self.get(run_id)
            if over(found.state) or found.state == "CANCELING":
                return found
            raise
        return self.get(run_id)

    def retry(self, run_id: str) -> Run:
        """Run the failed tasks of a run again, once, and return it."""
        ask = Ask("retry", f"run {run_id}", "once")
        found = self.get(run_id)
        if found.state not in ("FAILED", "CANCELED"):
            raise Rejected(
                f"{ask}: it is {found.state}; only a run that failed can be retried",
                hint=f"penstock runs show {run_id}",
            )
        tries = self._transport.patience.tries()
        while True:
            try:
                self._transport.attempt(
                    ask, _SERVICE, "run_service_retry_run", tries=tries, run_id=run_id
                )
            except LifecycleError as problem:
                now = self.get(run_id)
                if unsure(problem) and not over(now.state):
                    return now  # it was taken up; the answer got lost
                if not isinstance(problem, Unavailable):
                    raise
                tries.again(problem)
            else:
                return self.get(run_id)

    def log(self, run_id: str, pod: str) -> str:
        """Return what a pod of a run has printed; `Missing` where nobody kept it.

        The one endpoint for logs is v1alpha1's. It answers 200 before it looks, and writes what
        went wrong where the log would be.
        """
        ask = Ask("read", f"log of {pod}, run {run_id}")
        path = f"/apis/v1alpha1/runs/{run_id}/nodes/{pod}/log"
        text = self._transport.text(ask, path)
        problem = _problem(text)
        if problem:
            raise Missing(
                f"{ask}: the server has none: {problem}",
                hint=f"the pod may be gone: kubectl logs {pod} -c main; an archive, where there "
                "is one, is shown by the UI",
            )
        return text


def _body(new: NewRun, service_account: str) -> Any:
    import kfp_server_api as api

    return api.V2beta1Run(
        display_name=new.name,
        description=new.description or None,
        experiment_id=new.experiment_id,
        pipeline_version_reference=api.V2beta1PipelineVersionReference(
            pipeline_id=new.pipeline_id, pipeline_version_id=new.version_id
        ),
        runtime_config=api.V2beta1RuntimeConfig(parameters=dict(new.parameters)),
        service_account=new.service_account or service_account or None,
    )


def _problem(text: str) -> str:
    """Return what the server writes instead of a log."""
    tail = text[text.rfind('{"error_') :] if '{"error_' in text[-20_000:] else ""
    try:
        said = json.loads(tail) if tail else None
    except ValueError:
        return ""
    if isinstance(said, dict) and {"error_message", "error_details"} >= set(said):
        return str(said.get("error_message", ""))[:300]
    return ""
