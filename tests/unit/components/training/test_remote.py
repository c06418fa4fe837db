"""A TrainJob is created, followed, taken up and removed; its status is faked: no Trainer runs.

What plays Trainer here is `Trainer`: at each look it writes what the first process would write,
and the status that the cluster's controller would.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from components.training import produce, remote
from components.training.train_job import ERROR, LINES, REQUEST, RESULT, WEIGHTS, Job, objects
from penstock.core.errors import DataRefused, DeadlinePassed, TrainingFailed
from penstock.core.training import Distributed
from serving.cluster import Object
from tests.fakes.cluster import MemoryCluster

Deed = Callable[[], None]


class Trainer:
    """Does one deed at each look; each may write into the job's folder and set its status."""

    def __init__(self, cluster: MemoryCluster, job: Job, deeds: list[Deed]) -> None:
        self.cluster, self.job, self.deeds = cluster, job, deeds
        self.looks = 0

    def pause(self, _seconds: float) -> None:
        self.looks += 1
        assert self.looks < 20, "it follows for ever"
        if self.deeds:
            self.deeds.pop(0)()

    def status(self, **status: Any) -> Deed:
        def deed() -> None:
            obj = self.cluster.get("TrainJob", self.job.name)
            assert obj is not None
            self.cluster.replace_status({**obj, "status": status})

        return deed

    def ends(self, kind: str) -> Deed:
        condition = {"type": kind, "status": "True", "reason": "R", "message": "said by Trainer"}
        return self.status(conditions=[condition])

    def writes(self, name: str, *bodies: Mapping[str, Any]) -> Deed:
        text = "".join(json.dumps(body) + "\n" for body in bodies)

        def deed() -> None:
            path = Path(self.job.folder) / name
            path.write_text((path.read_text() if path.exists() else "") + text)

        return deed


@pytest.fixture
def job(tmp_path: Path) -> Job:
    where = Distributed(strategy="torchrun", volume=f"pvc://home={tmp_path}", nodes=2)
    return Job("chat-01234567", "models", "image:1", str(tmp_path / "trainings" / "x"), where)


def request(job: Job) -> dict[str, Any]:
    shared = str(Path(job.folder).parent)
    return dict.fromkeys(("base", "data", "progress", "scratch"), shared) | {"training": {}}


def follow(trainer: Trainer, told: list[Mapping[str, Any]]) -> Any:
    return remote.run(
        trainer.cluster,
        trainer.job,
        request(trainer.job),
        told.append,
        produce.VOICE,
        pause=trainer.pause,
    )


def test_it_is_created_followed_and_removed(job: Job) -> None:
    trainer = Trainer(MemoryCluster(), job, [])
    trainer.deeds = [
        trainer.status(jobsStatus=[{"name": "node", "active": 2, "ready": 2}]),
        trainer.writes(LINES, {"progress": [1, 4, "training"]}, {"point": {"step": 1}}),
        trainer.writes(LINES, {"progress": [4, 4, "training"]}),
        trainer.writes(RESULT, {"steps": 4, "peak_rss_bytes": 7}),
        trainer.ends("Complete"),
    ]
    told: list[Mapping[str, Any]] = []
    ran = follow(trainer, told)
    assert (ran.result, ran.peak_rss_bytes) == ({"steps": 4}, 7)
    steps = [body for body in told if "TrainJob" not in str(body)]
    assert steps == [
        {"progress": [1, 4, "training"]},
        {"point": {"step": 1}},
        {"progress": [4, 4, "training"]},
    ]
    asked = json.loads((Path(job.folder) / REQUEST).read_text())
    assert asked == {**request(job), "scratch": str(Path(job.folder) / WEIGHTS)}
    assert trainer.cluster.list("TrainJob") == trainer.cluster.list("TrainingRuntime") == []


def test_one_that_runs_is_taken_up_and_its_request_left_alone(job: Job) -> None:
    """As after a kill -9 of who followed: the job went on meanwhile."""
    cluster = MemoryCluster()
    for obj in objects(job):
        cluster.create(obj)
    folder = Path(job.folder)
    folder.mkdir(parents=True)
    (folder / REQUEST).write_text("as it was")
    (folder / WEIGHTS).mkdir()
    (folder / WEIGHTS / "model.safetensors").write_text("made before anybody followed again")
    (folder / LINES).write_text('{"progress": [3, 4, "training"]}\n{"progress": [4')
    before = cluster.get("TrainJob", job.name)
    trainer = Trainer(cluster, job, [])
    trainer.deeds = [
        trainer.writes(RESULT, {"steps": 4, "peak_rss_bytes": 7}),
        trainer.ends("Complete"),
    ]
    told: list[Mapping[str, Any]] = []
    assert follow(trainer, told).result == {"steps": 4}
    assert before is not None
    assert (folder / REQUEST).read_text() == "as it was"
    assert (Path(request(job)["scratch"]) / "model.safetensors").is_file()
    assert {"progress": [3, 4, "training"]} in told, "half a line waits for its rest"


@pytest.mark.parametrize("phase", ["Failed", "Complete"])
def test_one_that_ended_earlier_makes_room_for_a_new_one(job: Job, phase: str) -> None:
    cluster = MemoryCluster()
    trainer = Trainer(cluster, job, [])
    for obj in objects(job):
        cluster.create(obj)
    old = cluster.get("TrainJob", job.name)
    assert old is not None
    trainer.ends(phase)()
    Path(job.folder).mkdir(parents=True)
    (Path(job.folder) / RESULT).write_text('{"steps": 1}')
    made: list[Object | None] = []
    trainer.deeds = [
        lambda: made.append(cluster.get("TrainJob", job.name)),
        trainer.writes(RESULT, {"steps": 4}),
        trainer.ends("Complete"),
    ]
    assert follow(trainer, []).result == {"steps": 4}
    assert made[0] is not None
    assert made[0]["metadata"]["uid"] != old["metadata"]["uid"]


def test_a_failure_is_told_in_the_process_own_words_or_the_clusters(job: Job) -> None:
    error = {"kind": "DataRefused", "message": "40 rows are longer", "hint": "shorten them"}
    trainer = Trainer(MemoryCluster(), job, [])
    trainer.deeds = [trainer.writes(ERROR, error), trainer.ends("Failed")]
    with pytest.raises(DataRefused, match="40 rows are longer"):
        follow(trainer, [])
    assert trainer.cluster.list("TrainJob") == []
    other = Trainer(MemoryCluster(), job, [])
    other.deeds = [other.ends("Failed")]
    with pytest.raises(TrainingFailed, match="said by Trainer"):
        follow(other, [])


def test_one_that_left_no_result_or_was_deleted_is_no_success(job: Job) -> None:
    silent = Trainer(MemoryCluster(), job, [])
    silent.deeds = [silent.ends("Complete")]
    with pytest.raises(TrainingFailed, match="it left no result"):
        follow(silent, [])
    gone = Trainer(MemoryCluster(), job, [])
    gone.deeds = [lambda: gone.cluster.delete("TrainJob", job.name)]
    with pytest.raises(TrainingFailed, match="somebody deleted it"):
        follow(gone, [])


def test_one_whose_run_took_too_long_is_removed_and_its_checkpoints_stay(job: Job) -> None:
    def late() -> None:
        raise DeadlinePassed("too late")

    kept = Path(job.folder) / "checkpoint"
    kept.mkdir(parents=True)
    trainer = Trainer(MemoryCluster(), job, [late])
    with pytest.raises(DeadlinePassed):
        follow(trainer, [])
    assert trainer.cluster.list("TrainJob") == []
    assert kept.is_dir()


def test_a_named_runtime_is_neither_made_nor_removed(job: Job) -> None:
    named = replace(job, where=job.where.model_copy(update={"runtime": "team"}))
    trainer = Trainer(MemoryCluster(), named, [])
    trainer.cluster.create(objects(job)[0])  # somebody's, of the same name
    trainer.deeds = [trainer.writes(RESULT, {"steps": 4}), trainer.ends("Complete")]
    follow(trainer, [])
    assert len(trainer.cluster.list("TrainingRuntime")) == 1
