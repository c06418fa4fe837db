"""A candidate without room changes nothing; one that was begun is not asked for it again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from components.steps.context import Context
from components.steps.rollout import loan_for
from penstock.core.errors import ConfigurationError
from penstock.core.settings import Settings
from penstock.core.spec import ModelSpec
from serving import controller as acting
from serving.gpus.surge import Beside, Borrow, Decision, Refuse
from serving.manifests import route
from serving.rollout.loan import Loan
from serving.rollout.record import first_record
from tests.fakes.cluster import MemoryCluster

SPEC = ModelSpec.model_validate({"name": "m", "source": "hf://a/b"})
LOAN = Loan("m-v1", 2, 1, "m-v2", 1, 1)
NO = Refuse("m-v2 needs a device", "rollout.surge: borrow")


class Target:
    """As much of a target as the question needs."""

    traffic = acting.LOCAL

    def __init__(self, says: Decision | None) -> None:
        self.says = says
        self.cluster = MemoryCluster()
        self.cluster.create(route("m", {"m-v1": 100}))

    def surge(self, model: ModelSpec, service: str, stable: str) -> Decision:
        assert (model.name, service, stable) == ("m", "m-v2", "m-v1")
        assert self.says is not None, "nobody should ask"
        return self.says


def _asked(target: Any, folder: Path) -> tuple[Loan | None, dict[str, Any]]:
    context = Context(Settings(home=folder), folder, "deploy")
    return loan_for(context, target, SPEC, "m-v2", "m-v1"), context.detail


def test_a_refusal_says_what_would_do_and_nothing_is_written(tmp_path: Path) -> None:
    target = Target(NO)
    before = target.cluster.get("HTTPRoute", "m")
    with pytest.raises(ConfigurationError, match="needs a device") as problem:
        _asked(target, tmp_path)
    assert problem.value.hint == "rollout.surge: borrow"
    assert target.cluster.get("HTTPRoute", "m") == before


@pytest.mark.parametrize(
    ("says", "loan"), [(Beside("2 are free"), None), (Borrow(LOAN, "lends"), LOAN)]
)
def test_what_was_decided_is_told(tmp_path: Path, says: Any, loan: Loan | None) -> None:
    found, detail = _asked(Target(says), tmp_path)
    assert (found, detail["devices"]) == (loan, says.told)


def test_a_version_that_is_there_has_its_devices(tmp_path: Path) -> None:
    target = Target(None)
    target.cluster.create(
        {"kind": "InferenceService", "metadata": {"name": "m-v2"}, "spec": {"predictor": {}}}
    )
    assert _asked(target, tmp_path) == (None, {})


@pytest.mark.parametrize("loan", [None, LOAN])
def test_a_run_that_was_interrupted_keeps_its_loan(tmp_path: Path, loan: Loan | None) -> None:
    target = Target(None)
    log, first = acting.FileLog(tmp_path), first_record("m-v2", "m-v1", SPEC.rollout, 1.0)
    acting.begin(target.cluster, log, "m", first, SPEC.rollout, loan=loan)
    assert _asked(target, tmp_path)[0] == loan
