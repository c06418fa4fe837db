"""What is refused before anything is sent."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from penstock.core.errors import ConfigurationError, SpecError
from penstock.core.spec import ModelSpec
from pipelines.submission.checks import check_for_pods
from pipelines.submission.errors import Unavailable, Unfinished, UnknownParameter
from pipelines.submission.package import (
    check_parameters,
    compiled,
    package_of,
    pinned,
    with_registry,
)
from pipelines.submission.values import Run, State
from pipelines.submission.waiting import poll_s, wait
from tests.fakes.kfp.faked_time import FakedTime

_GOLDEN = Path(__file__).parents[3] / "golden/pipelines"
IR, RETRAIN = ((_GOLDEN / f"{name}.yaml").read_text() for name in ("lifecycle", "retrain"))
GOOD: dict[str, Any] = {
    "name": "demo",
    "source": "hf://org/name@main",
    "target": {"kserve": {"namespace": "models"}},
    "data": {"evaluate": "s3://bucket/evaluate.jsonl"},
}


def refused(*, pod_paths: bool = False, **changed: Any) -> list[str]:
    spec = ModelSpec.model_validate({**GOOD, **changed})
    try:
        check_for_pods(spec, pod_paths=pod_paths)
    except SpecError as problem:
        return [mistake.path for mistake in problem.mistakes]
    return []


def test_what_pods_can_see_is_taken() -> None:
    assert refused() == []
    assert refused(data={"evaluate": "hf://datasets/org/set@main/e.jsonl"}) == []


@pytest.mark.parametrize(
    ("changed", "path"),
    [
        ({"target": "local"}, "target"),
        ({"target": {"kserve": {"context": "kind"}}}, "target.kserve.context"),
        ({"source": "file:///models/demo"}, "source"),
        ({"data": {"evaluate": "evaluate.jsonl"}}, "data.evaluate"),
        ({"data": {"train": "../train.jsonl"}}, "data.train"),
        ({"data": {"calibrate": "/data/calibrate.jsonl"}}, "data.calibrate"),
        ({"target": {"kserve": {"address": "http://localhost:8080"}}}, "target.kserve.address"),
        (
            {"target": {"kserve": {"prometheus": "http://127.0.0.1:9090"}}},
            "target.kserve.prometheus",
        ),
    ],
)
def test_what_only_this_machine_sees_is_refused(changed: dict[str, Any], path: str) -> None:
    assert refused(**changed) == [path]


def test_every_mistake_is_told_at_once() -> None:
    found = refused(target="local", source="file:///x/y", data={"train": "t.jsonl"})
    assert found == ["target", "source", "data.train"]


def test_paths_of_the_pods_are_taken_if_that_is_said() -> None:
    assert refused(pod_paths=True, source="file:///mnt/m", data={"train": "/mnt/t.jsonl"}) == []
    assert refused(pod_paths=True, data={"train": "t.jsonl"}) == ["data.train"]


def test_parameters_are_checked_before_anything_is_sent() -> None:
    package = package_of(IR)
    check_parameters(package, {"spec": "{}"})
    for given, named in (({"spec": "{}", "x": 1}, "x"), ({}, "spec"), ({"spec": 1}, "spec")):
        with pytest.raises(UnknownParameter, match=f"parameter {named}"):
            check_parameters(package, given)


def test_a_package_is_known_by_its_content() -> None:
    package = package_of(IR)
    assert package.name == "penstock-lifecycle"
    assert package_of("# a comment\n" + IR).version == package.version
    assert package_of(IR.replace("Pin every", "Name every", 1)).digest != "" != package.digest
    moved = package_of(with_registry(IR, "registry.example/team"))
    assert moved.version != package.version
    assert "image: registry.example/team/penstock-python:" in moved.text
    assert "image: penstock-python:" not in moved.text
    assert with_registry(IR, "") == IR


def test_images_are_named_by_digest_or_not_at_all(tmp_path: Path) -> None:
    file = tmp_path / "images.json"
    names = sorted(set(re.findall(r"image: (penstock[\w-]*):", IR)))
    assert "penstock-python" in names
    places = {name: f"registry.example:5000/team/{name}@sha256:{'0' * 64}" for name in names}
    file.write_text(json.dumps(places))
    text = pinned(IR, file)
    assert set(re.findall(r"image: (\S+)", text)) == set(places.values())
    assert package_of(text).version != package_of(IR).version

    other = f"registry.example/team/penstock-python@sha256:{'1' * 64}"
    file.write_text(json.dumps({**places, "penstock-python": other}))
    assert package_of(pinned(IR, file)).version != package_of(text).version
    for wrong in ("registry.example/team/penstock-python:0.1.0", None, 7):
        file.write_text(json.dumps({**places, "penstock-python": wrong}))
        with pytest.raises(ConfigurationError, match="json: penstock-python: found"):
            pinned(IR, file)
    with pytest.raises(ConfigurationError, match=r"gone\.json: No such file"):
        compiled("lifecycle", images=str(tmp_path / "gone.json"))
    for text in ("[]", "{"):
        file.write_text(text)
        with pytest.raises(ConfigurationError, match="json: "):
            pinned(IR, file)


def test_what_compares_images_is_told_the_one_that_is_pinned(tmp_path: Path) -> None:
    names = set(re.findall(r"image: (penstock[\w-]*):", RETRAIN))
    places = {name: f"registry.example/{name}@sha256:{'a' * 64}" for name in names}
    (tmp_path / "images.json").write_text(json.dumps(places))
    text = pinned(RETRAIN, tmp_path / "images.json")
    assert f"constant: {places['penstock-train-python']}" in text
    moved = with_registry(RETRAIN, "registry.example/team")
    assert "constant: registry.example/team/penstock-train-python:" in moved


def test_an_unknown_pipeline_is_named() -> None:
    with pytest.raises(ConfigurationError, match="lifecycle"):
        compiled("livecycle")


class Runs:
    """Shows a run's states one by one."""

    def __init__(self, *states: State | Exception) -> None:
        self.states = list(states)

    def get(self, run_id: str) -> Run:
        found = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        if isinstance(found, Exception):
            raise found
        return Run(run_id, "demo", found)


@pytest.mark.parametrize("final", ["SUCCEEDED", "SKIPPED", "FAILED", "CANCELED"])
def test_waiting_ends_with_every_final_state(final: State) -> None:
    seen: list[State] = []
    runs = Runs("PENDING", "RUNNING", "CANCELING", final)
    patience = FakedTime().patience()
    run = wait(runs, "1", watch=lambda r: seen.append(r.state), patience=patience)
    assert run.state == final
    assert seen == ["PENDING", "RUNNING", "CANCELING", final]


def test_waiting_has_an_end_where_one_is_set() -> None:
    time = FakedTime()
    with pytest.raises(Unfinished, match="RUNNING after") as told:
        wait(Runs("RUNNING"), "1", watch=lambda _: None, patience=time.patience(), timeout_s=60)
    assert 50 < time.now_s <= 60
    assert "penstock runs cancel 1" in told.value.hint


def test_a_server_that_is_gone_leaves_the_run_alone() -> None:
    runs = Runs("RUNNING", Unavailable("no answer"))
    with pytest.raises(Unavailable, match="the run goes on") as told:
        wait(runs, "1", watch=lambda _: None, patience=FakedTime().patience())
    assert told.value.hint == "penstock runs show 1 --wait"


def test_the_longer_it_takes_the_seldomer_it_is_looked_at() -> None:
    assert [poll_s(s) for s in (0, 240, 10_000)] == [2, 6, 10]
