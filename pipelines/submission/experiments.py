"""Experiments: groups of runs."""

from __future__ import annotations

from pipelines.submission import reading
from pipelines.submission.errors import Taken
from pipelines.submission.paging import listed, where
from pipelines.submission.refusals import Ask
from pipelines.submission.transport import Transport
from pipelines.submission.values import Experiment

_SERVICE = "ExperimentServiceApi"


class Experiments:
    """The experiments of one namespace; their names are unique in it."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def named(self, name: str) -> Experiment | None:
        """Return the experiment of this name; None if there is none."""
        bodies = listed(
            lambda **page: self._transport.call(
                Ask("read", f"experiment {name}"),
                _SERVICE,
                "experiment_service_list_experiments",
                filter=where(display_name=name),
                namespace=self._transport.namespace,
                **page,
            ),
            "experiments",
        )
        return reading.experiment(bodies[0]) if bodies else None

    def ensure(self, name: str) -> Experiment:
        """Return the experiment of this name, created if it is missing."""
        import kfp_server_api as api

        found = self.named(name)
        if found is not None:
            return found
        body = api.V2beta1Experiment(display_name=name, namespace=self._transport.namespace or None)
        ask = Ask("create", f"experiment {name}", "same")
        try:
            return reading.experiment(
                self._transport.call(
                    ask, _SERVICE, "experiment_service_create_experiment", experiment=body
                )
            )
        except Taken:  # somebody was quicker, or the answer of our first request got lost
            again = self.named(name)
            if again is None:
                raise
            return again
