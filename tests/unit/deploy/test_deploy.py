"""What is installed on a cluster says what the code says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from penstock import __version__
from penstock.core.spec import Rollout
from serving import controller as acting
from serving.kserve.facts import Facts
from serving.kserve.runtimes import cpu_runtime
from serving.rollout.decide import Shift
from serving.rollout.record import OVER, Phase, first_record
from tests.fakes.cluster import MemoryCluster
from tests.fakes.world import CANDIDATE, NAME, STABLE, StreamWorld, services

ROOT = Path(__file__).resolve().parents[3]
DEPLOY = ROOT / "deploy"


def _all(path: str) -> list[Any]:
    return list(yaml.safe_load_all((DEPLOY / path).read_text()))


def _policy() -> dict[str, Any]:
    found: dict[str, Any] = _all("admission/rollout-policy.yaml")[0]["spec"]
    return found


def _follows() -> dict[str, list[str]]:
    """Return the table of transitions: CEL's map literal is YAML's, too."""
    text = {v["name"]: v["expression"] for v in _policy()["variables"]}["follows"]
    found: dict[str, list[str]] = yaml.safe_load(text)
    return found


@pytest.mark.parametrize("path", sorted(DEPLOY.rglob("kustomization.yaml")), ids=str)
def test_what_a_kustomization_names_is_there(path: Path) -> None:
    for name in yaml.safe_load(path.read_text())["resources"]:
        assert (path.parent / name).exists(), name


def test_the_runtime_is_the_one_that_versions_ask_for() -> None:
    wanted = cpu_runtime(Facts())
    del wanted["metadata"]["namespace"]
    assert _all("runtimes/penstock-cpu.yaml") == [wanted]


def test_the_controllers_image_is_one_of_ours() -> None:
    kustomization = _all("controller/kustomization.yaml")[0]
    image = kustomization["images"][0]
    assert image["newTag"] == __version__
    assert (ROOT / "images" / f"{image['name']}.Containerfile").exists()
    (pod,) = _all("controller/deployment.yaml")
    assert pod["spec"]["template"]["spec"]["containers"][0]["image"] == image["name"]


def test_admission_knows_every_phase_and_every_annotation() -> None:
    assert set(_follows()) == set(get_args(Phase))
    text = (DEPLOY / "admission/rollout-policy.yaml").read_text()
    assert set(re.findall(r"penstock\.dev/[\w-]+", text)) == {
        acting.EPOCH,
        acting.PHASE,
        acting.RECORD,
    }


@pytest.mark.parametrize("wrong", [(0.0, 0.0), (0.05, 0.05), (0.0, 0.08)])
@pytest.mark.parametrize("asked", ["", "promote", "rollback"])
def test_no_rollout_goes_where_admission_does_not_let_it(
    tmp_path: Path, wrong: tuple[float, float], asked: Any
) -> None:
    cluster, follows = MemoryCluster(), _follows()
    services(cluster)
    world, log, policy = StreamWorld(cluster, wrong), acting.FileLog(tmp_path), Rollout(soak_s=5)
    acting.begin(cluster, log, NAME, first_record(CANDIDATE, STABLE, policy, world.now), policy)
    owner = acting.Controller(cluster, log, world, "one")
    before, steps = "deploying", 0
    for _ in range(300):
        made = owner.look(NAME)
        world.now += 1.0
        assert made is not None
        if made.record.phase != before:
            assert made.record.phase in follows[before]
            before, steps = made.record.phase, steps + 1
        if asked and made.record.phase == "shadow":
            acting.command(cluster, log, NAME, asked)
        if made.record.over and not isinstance(made.action, Shift):
            break
    assert before in OVER
    assert steps >= 3
