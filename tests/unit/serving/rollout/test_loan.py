"""A version that lends replicas has them back when the rollout is over, whoever was interrupted."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from penstock.core.errors import ConfigurationError, Conflict
from penstock.core.spec import Rollout
from serving import controller as acting
from serving.cluster import Object
from serving.controller import Controller, FileLog
from serving.manifests import replicas_of, route
from serving.rollout import events
from serving.rollout.decide import Seen
from serving.rollout.loan import Loan
from serving.rollout.record import Record, first_record
from serving.traffic import LocalTraffic
from tests.fakes.cluster import MemoryCluster
from tests.fakes.world import CANDIDATE, NAME, STABLE, StreamWorld

POLICY = Rollout(soak_s=0.0)
BORROW = Loan(STABLE, 4, 3, CANDIDATE, 4, 1)
SWAP = Loan(STABLE, 2, 0, CANDIDATE, 2, 2)


class Lending(LocalTraffic):
    """Versions whose replicas are no part of their content, as on a cluster."""

    def content(self, obj: Object) -> str:
        return json.dumps({**obj["spec"]["predictor"], "minReplicas": 0, "maxReplicas": 0})


class Clocked(StreamWorld):
    """A second passes with every look; content is read as on a cluster."""

    def seen(self, record: Record) -> Seen:
        self.now += 1.0
        versions = self.cluster.list("InferenceService")
        contents = {each["metadata"]["name"]: Lending().content(each) for each in versions}
        return replace(super().seen(record), contents=contents)


class Busy(MemoryCluster):
    """A cluster whose own controller often writes first."""

    def __init__(self) -> None:
        super().__init__()
        self.conflicts = 0

    def replace(self, obj: Object, *, dry_run: bool = False) -> Object:
        if self.conflicts and obj["kind"] == "InferenceService":
            self.conflicts -= 1
            raise Conflict("a status was written")
        return super().replace(obj, dry_run=dry_run)


class Stage:
    """A rollout with a loan."""

    def __init__(self, folder: Path, loan: Loan | None, wrong: tuple[float, float] = (0.0, 0.0)):
        self.cluster, self.log = Busy(), FileLog(folder)
        own = {STABLE: loan.owns if loan else 4, CANDIDATE: loan.starts if loan else 4}
        for name, replicas in own.items():
            pods = {"predictor": {"minReplicas": replicas, "maxReplicas": replicas, "model": {}}}
            self.cluster.create(
                {"kind": "InferenceService", "metadata": {"name": name}, "spec": pods}
            )
        self.cluster.create(route(NAME, {STABLE: 100}))
        self.world = Clocked(self.cluster, wrong, pairs=600, requests=4000)
        first = first_record(CANDIDATE, STABLE, POLICY, self.world.now)
        acting.begin(self.cluster, self.log, NAME, first, POLICY, loan=loan)
        self.controller = self.owned_by("one")

    def owned_by(self, owner: str) -> Controller:
        return Controller(self.cluster, self.log, self.world, owner, traffic=Lending())

    def replicas(self) -> dict[str, int]:
        return {
            o["metadata"]["name"]: replicas_of(o) for o in self.cluster.list("InferenceService")
        }

    def until(self, *phases: str) -> Record:
        for _ in range(400):
            made = self.controller.look(NAME)
            if made is not None and made.record.phase in phases:
                return made.record
        raise AssertionError(f"never in {phases}")

    def carrier(self) -> Object:
        obj = self.cluster.get("HTTPRoute", NAME)
        assert obj is not None
        return obj


def test_what_is_lent_is_grown_into_by_who_is_promoted(tmp_path: Path) -> None:
    stage = Stage(tmp_path, BORROW)
    stage.controller.look(NAME)
    assert stage.replicas() == {STABLE: 3, CANDIDATE: 1}
    stage.until("ramp")
    assert stage.replicas() == {STABLE: 3, CANDIDATE: 1}
    record = stage.until("promoted")
    assert record.held == ""
    stage.controller.look(NAME)
    assert stage.replicas() == {CANDIDATE: 4}
    before = json.loads(stage.carrier()["metadata"]["annotations"][acting.PREVIOUS])
    assert replicas_of(before) == 4, "who goes back goes back to all of it"


def test_what_is_lent_comes_back_when_the_candidate_goes(tmp_path: Path) -> None:
    stage = Stage(tmp_path, BORROW, (0.05, 0.05))
    stage.until("shadow")
    assert stage.replicas()[STABLE] == 3
    stage.until("rolling_back")
    assert stage.replicas()[STABLE] == 4, "before the candidate is gone: devices wait for nobody"
    stage.until("rolled_back")
    stage.controller.look(NAME)
    assert stage.replicas() == {STABLE: 4}


def test_a_candidate_that_never_starts_gives_back(tmp_path: Path) -> None:
    stage = Stage(tmp_path, BORROW)
    stage.world.ready = False
    stage.until("rolled_back")
    assert stage.replicas()[STABLE] == 4


def test_another_owner_goes_on_lending_and_gives_back(tmp_path: Path) -> None:
    stage = Stage(tmp_path, BORROW, (0.05, 0.05))
    stage.world.now += 60  # the lease of whoever began it is over
    stage.controller = stage.owned_by("two")
    stage.controller.look(NAME)
    assert stage.replicas() == {STABLE: 3, CANDIDATE: 1}
    stage.world.now += 60
    stage.controller = stage.owned_by("three")
    stage.until("rolled_back")
    assert stage.replicas()[STABLE] == 4


def test_who_is_changed_by_others_meanwhile_is_read_again(tmp_path: Path) -> None:
    stage = Stage(tmp_path, BORROW)
    stage.cluster.conflicts = 3
    assert stage.controller.look(NAME) is not None
    assert stage.replicas()[STABLE] == 3
    stage.cluster.conflicts = 100
    acting.command(stage.cluster, stage.log, NAME, "rollback")
    assert stage.controller.look(NAME) is None, "not done: another look does it"
    stage.cluster.conflicts = 0
    stage.until("rolled_back")
    assert stage.replicas()[STABLE] == 4


def test_replicas_that_somebody_else_sets_are_set_again(tmp_path: Path) -> None:
    stage = Stage(tmp_path, BORROW)
    stage.until("shadow")
    obj = stage.cluster.get("InferenceService", STABLE)
    assert obj is not None
    obj["spec"]["predictor"]["minReplicas"] = 9
    stage.cluster.replace(obj)
    stage.controller.look(NAME)
    assert stage.replicas()[STABLE] == 3


def test_an_argument_that_somebody_changes_still_holds_a_rollout(tmp_path: Path) -> None:
    stage = Stage(tmp_path, BORROW)
    stage.until("shadow")
    obj = stage.cluster.get("InferenceService", STABLE)
    assert obj is not None
    obj["spec"]["predictor"]["model"] = {"args": ["--other"]}
    stage.cluster.replace(obj)
    made = stage.controller.look(NAME)
    assert made is not None
    assert made.record.held == "edited"


def test_a_rollout_that_took_generations_for_content_goes_on(tmp_path: Path) -> None:
    stage = Stage(tmp_path, None)
    stage.until("shadow")
    obj, record = stage.carrier(), acting.record_of(stage.carrier())
    assert record is not None
    earlier = replace(record, contents={STABLE: "1", CANDIDATE: "3"})
    stage.cluster.replace(acting.annotated(obj, {acting.RECORD: earlier.to_json()}))
    stage.controller = stage.owned_by("one")
    made = stage.controller.look(NAME)
    assert made is not None
    assert made.record.held == ""


def test_a_swap_goes_all_the_way_without_evidence(tmp_path: Path) -> None:
    stage = Stage(tmp_path, SWAP)
    stage.controller.look(NAME)
    assert stage.replicas() == {STABLE: 0, CANDIDATE: 2}
    record = stage.until("promoted")
    assert (record.evidence.pairs, record.evidence.requests) == (0, 0)
    assert record.reason == "the stable version was stopped to make room; unproven"
    stage.controller.look(NAME)
    assert stage.replicas() == {CANDIDATE: 2}
    before = json.loads(stage.carrier()["metadata"]["annotations"][acting.PREVIOUS])
    assert replicas_of(before) == 2
    text = events.certificate(POLICY.model_dump_json(), record, stage.log.lines(NAME))
    assert events.verify(text)[-1].record.phase == "promoted"


def test_a_swap_that_does_not_start_brings_back_what_was_served(tmp_path: Path) -> None:
    stage = Stage(tmp_path, SWAP)
    stage.world.ready = False
    stage.until("rolled_back")
    stage.controller.look(NAME)
    assert stage.replicas() == {STABLE: 2}


def test_the_next_rollout_owes_nothing(tmp_path: Path) -> None:
    stage = Stage(tmp_path, BORROW, (0.05, 0.05))
    stage.until("rolled_back")
    stage.controller.look(NAME)
    first = first_record("m-v3", STABLE, POLICY, stage.world.now)
    acting.begin(stage.cluster, stage.log, NAME, first, POLICY)
    assert acting.loan_of(stage.carrier()) is None


def test_a_rollout_without_a_loan_leaves_replicas_alone(tmp_path: Path) -> None:
    stage = Stage(tmp_path, None)
    assert acting.LOAN not in stage.carrier()["metadata"]["annotations"]
    stage.until("promoted")
    stage.controller.look(NAME)
    assert stage.replicas() == {CANDIDATE: 4}


@pytest.mark.parametrize("text", ["{", "[]", '{"stable": "a"}', '{"owes": 1}'])
def test_a_document_that_is_no_loan_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="not a loan"):
        Loan.from_json(text)


@pytest.mark.parametrize("loan", [BORROW, SWAP])
def test_a_loan_is_read_as_it_was_written(loan: Any) -> None:
    assert Loan.from_json(loan.to_json()) == loan
