"""The way into Kubeflow Pipelines: `connect(settings)` returns what the API keeps, by kind.

Every call is bounded in time and repeated where that is safe; what cannot be repeated blindly is
looked up first (`pipelines.submission.once`). Errors: `pipelines.submission.errors`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from pipelines.submission.experiments import Experiments
from pipelines.submission.patience import Patience
from pipelines.submission.published import Pipelines
from pipelines.submission.refusals import Ask
from pipelines.submission.runs import Runs
from pipelines.submission.schedules import Schedules
from pipelines.submission.settings import KfpSettings
from pipelines.submission.transport import Transport
from pipelines.submission.values import Health


@dataclass(frozen=True, slots=True)
class SubmissionClient:
    """One API server, one namespace.

    Attributes:
        experiments: Groups of runs: `named`, `ensure`.
        pipelines: What is published: `named`, `list`, `versions`, `create`, `add_version`.
        runs: `create`, `get`, `list`, `terminate`, `retry`, `log`.
        schedules: Recurring runs: `create`, `get`, `named`, `list`, `enable`, `disable`, `delete`.
    """

    experiments: Experiments
    pipelines: Pipelines
    runs: Runs
    schedules: Schedules
    _transport: Transport

    def health(self) -> Health:
        """Return what the server says of itself: the cheapest call there is."""
        ask = Ask("ask", "the server's health")
        said = self._transport.call(ask, "HealthzServiceApi", "healthz_service_get_healthz")
        return Health(multi_user=bool(said.get("multi_user")))


@contextmanager
def connect(settings: KfpSettings, patience: Patience | None = None) -> Iterator[SubmissionClient]:
    """Yield a client; nothing is asked of the server yet.

    Args:
        settings: Where the server is, and who asks.
        patience: Bounds in time, a clock and a pause; what `settings` says without one.
    """
    transport = Transport(settings, patience or Patience(total_s=settings.total_s))
    try:
        yield SubmissionClient(
            experiments=Experiments(transport),
            pipelines=Pipelines(transport),
            runs=Runs(transport),
            schedules=Schedules(transport),
            _transport=transport,
        )
    finally:
        transport.close()
