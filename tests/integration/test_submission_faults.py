"""Submitting to a server that fails in every way: one run, the right exit code, and an end.

Time is faked: it passes in the client's pauses. Only a server that hangs costs real time, which
is the client's `read_s`.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock.core.errors import LifecycleError
from pipelines.submission.client import SubmissionClient, connect
from pipelines.submission.errors import Rejected, RunEnded, Unavailable
from pipelines.submission.package import package_of
from pipelines.submission.publishing import publish
from pipelines.submission.settings import KfpSettings
from pipelines.submission.states import exit_code
from pipelines.submission.values import NewRun, State
from pipelines.submission.waiting import raise_if_bad, wait
from tests.fakes.kfp import Double, Fault, kfp_server
from tests.fakes.kfp.faked_time import FakedTime
from tests.fakes.kfp.faults import Kind

pytestmark = pytest.mark.integration
IR = Path(__file__).parents[1] / "golden/pipelines/lifecycle.yaml"
T = TypeVar("T")
HANG_S = 0.04
TOTAL_S = 30.0
CODES: dict[State, int] = {"SUCCEEDED": 0, "FAILED": 1, "SKIPPED": 1, "CANCELED": 130}

_KINDS: list[Kind] = ["drop", "hang", "truncate"]
_STATUS: list[Kind] = ["status", "status"]
_TARGET = st.sampled_from(
    [("POST", "/runs"), ("GET", "/runs?"), ("GET", "/runs/"), ("GET", ""), ("", "")]
)
_TIMES = st.sampled_from([1, 1, 1, 2, 3, 1000])


@st.composite
def faults(draw: st.DrawFn) -> Fault:
    """Return one way to fail. What hangs does so once: it costs real time."""
    method, path = draw(_TARGET)
    kind = draw(st.sampled_from(_KINDS + _STATUS))
    executed = draw(st.booleans())
    late = 0 if executed else draw(st.integers(0, 5))
    if kind != "status":
        times = 1 if kind == "hang" else draw(_TIMES)
        return Fault(
            kind, method, path, times, executed=executed, late_after=late if times == 1 else 0
        )
    status = draw(st.sampled_from([429, 500, 502, 503, 504]))
    if status == 429:  # turned away at the door
        headers = draw(st.sampled_from([{}, {"Retry-After": "1"}]))
        return Fault("status", method, path, draw(_TIMES), 429, headers)
    return Fault("status", method, path, draw(_TIMES), status, executed=executed)


class World:
    """A server with a pipeline, and clients in a time of their own."""

    def __init__(self, double: Double) -> None:
        self.double = double
        with connect(KfpSettings(url=double.url)) as client:
            self._stored = publish(client, package_of(IR.read_text()))
            self._experiment = client.experiments.ensure("faults")

    def new(self) -> NewRun:
        return NewRun(
            f"run-{uuid.uuid4().hex}",
            self._experiment.experiment_id,
            self._stored.pipeline.pipeline_id,
            self._stored.version.version_id,
            {"spec": "{}"},
        )

    def meet(self, sequence: list[Fault], script: list[str]) -> None:
        """Submit and wait through faults; say whether everything holds that must."""
        time, new = FakedTime(), self.new()
        self.double.store.script = lambda _: list(script)
        patience = time.patience(total_s=TOTAL_S, read_s=HANG_S)
        self.double.faults[:] = [replace(fault) for fault in sequence]
        try:
            with connect(KfpSettings(url=self.double.url), patience) as client:
                self._submitted(client, new, time, script[-1])
        finally:
            self.double.faults.clear()
        self.double.do(self.double.store.runs.clear)

    def _submitted(
        self, client: SubmissionClient, new: NewRun, time: FakedTime, final: str
    ) -> None:
        run = _or_problem(lambda: client.runs.create(new))
        live = [row.body["run_id"] for row in self.double.live(new.name)]
        assert time.now_s <= TOTAL_S
        if isinstance(run, LifecycleError):
            assert isinstance(run, Unavailable | Rejected)
            assert (run.exit_code, bool(run.hint)) == (8, True)
            assert len(live) <= 1
            # where nobody can tell, the person is told so
            assert not live or "may have been created" in str(run)
            return
        assert live == [run.run_id]
        began = time.now_s
        self._waited(client, run.run_id, time, final)
        assert time.now_s - began <= 8 * (TOTAL_S + 10)

    def _waited(self, client: SubmissionClient, run_id: str, time: FakedTime, final: str) -> None:
        patience = time.patience(total_s=TOTAL_S, read_s=HANG_S)
        ended = _or_problem(
            lambda: wait(client.runs, run_id, watch=lambda _: None, patience=patience)
        )
        if isinstance(ended, LifecycleError):
            assert ended.exit_code == 8
            assert "the run goes on" in str(ended)
            return
        assert ended.state == final
        told = _or_problem(lambda: raise_if_bad(ended))
        code = told.exit_code if isinstance(told, RunEnded) else 0
        assert code == exit_code(ended.state) == CODES[ended.state]


def _or_problem(do: Callable[[], T]) -> T | LifecycleError:
    try:
        return do()
    except LifecycleError as problem:
        return problem


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with kfp_server() as double:
        yield World(double)


SEQUENCES = st.lists(faults(), max_size=6)
SCRIPTS = st.builds(
    lambda before, last: [*before, last],
    st.lists(st.sampled_from(["PENDING", "RUNNING", "PAUSED"]), max_size=3),
    st.sampled_from(list(CODES)),
)
_CHECKS = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]


@settings(max_examples=60, suppress_health_check=_CHECKS)
@given(sequence=SEQUENCES, script=SCRIPTS)
def test_one_run_the_right_exit_code_and_an_end(
    world: World, sequence: list[Fault], script: list[str]
) -> None:
    world.meet(sequence, script)


@pytest.mark.soak
@settings(max_examples=500, suppress_health_check=_CHECKS)
@given(sequence=SEQUENCES, script=SCRIPTS)
def test_one_run_under_500_sequences_of_faults(
    world: World, sequence: list[Fault], script: list[str]
) -> None:
    world.meet(sequence, script)
