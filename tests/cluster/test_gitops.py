"""Git holds the weights: what `--render` wrote is applied with kubectl, and taken back with git."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from penstock.cli.edge import NO_REGISTRY
from serving import controller as acting
from serving.deploy import propose
from serving.gitops.steps import first
from serving.manifests import ready
from serving.rollout.record import first_record
from serving.sources.replay import Prompt
from serving.targets.rendered import RenderedTarget
from tests.cluster.served import kubectl, penstock
from tests.cluster.stage import NAME, PATIENT, Stage
from tests.cluster.waiting import until

pytestmark = [pytest.mark.cluster, pytest.mark.wider, pytest.mark.enable_socket]

_START_S = 300.0
_STEPS = 12
"""More than a rollout has."""


class Git:
    """A folder under Git, and somebody who applies what is committed."""

    def __init__(self, stage: Stage, folder: Path) -> None:
        self.stage, self.folder = stage, folder
        self.target = RenderedTarget(stage.target, folder)
        folder.mkdir()
        self.git("init", "--quiet")

    def git(self, *words: str) -> str:
        who = ["-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "commit.gpgsign=false"]
        command = ["git", "-C", str(self.folder), *who, *words]
        return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout

    def commit(self, message: str) -> None:
        self.git("add", "--all")
        self.git("commit", "--quiet", "-m", message)
        self.apply()

    def apply(self) -> None:
        """Make the cluster what the folder is; what is no longer there goes last."""
        kubectl(self.stage, "apply", "-k", str(self.folder))
        wanted = {obj["metadata"]["name"] for obj in self.target.cluster.list("InferenceService")}
        carrier = self.target.cluster.get("HTTPRoute", NAME)
        assert carrier is not None
        weights = self.target.traffic.weights_of(carrier)
        if all(ready_there(self.stage, each) for each in weights):
            until("the route", lambda: self.target.observed(NAME) == weights)
        for obj in self.stage.target.cluster.list("InferenceService"):
            if obj["metadata"]["name"] not in wanted:
                kubectl(self.stage, "delete", "isvc", obj["metadata"]["name"], "--wait=false")

    def call(self, *words: str) -> tuple[int, str]:
        home = str(self.stage.settings.home)
        return penstock(*words, "--namespace", self.stage.namespace, PENSTOCK_HOME=home)

    def step(self) -> dict[str, Any]:
        code, said = self.call(
            *("rollout", "step", NAME, "--render", str(self.folder)),
            *("--timeout", "240", "--output", "json"),
        )
        assert code == 0, said
        made: dict[str, Any] = json.loads(said[said.index("{") : said.rindex("}") + 1])
        return made

    def begin(self, version: int) -> None:
        """Make a version a candidate, as `penstock run --render` does."""
        stage, target = self.stage, self.target
        service = f"{NAME}-v{version}"
        prompts = [Prompt(({"role": "user", "content": f"what is {n}?"},)) for n in range(400)]
        target.keep_prompts(service, prompts, 8)
        stable = acting.stable_of(target.cluster, NAME, target.traffic)
        record = first_record(service, stable, stage.policy, time.time())
        log = target.log
        acting.begin(target.cluster, log, NAME, record, stage.policy, traffic=target.traffic)
        propose(target.cluster, stage.spec(), stage.release(version), target.traffic)


@pytest.fixture
def git(cluster: Any, namespace: str, tmp_path: Path) -> Git:
    stage = Stage(namespace, tmp_path, policy=PATIENT, cpu="400m")
    stage.prepare()
    return Git(stage, tmp_path / "git")


def test_every_step_is_applied_and_a_revert_brings_the_stable_version_back(git: Git) -> None:
    stage, target = git.stage, git.target
    first(target.cluster, stage.spec(), stage.release(1), target.traffic)
    git.commit("first version")
    until("version 1", lambda: ready_there(stage, "m-v1"), _START_S)
    until("its route", lambda: target.observed(NAME) == {"m-v1": 100})
    start = git.git("rev-parse", "HEAD").strip()
    assert git.call("drift", str(git.folder)) == (0, _same())
    with stage.users(10.0) as users:
        git.begin(2)
        git.commit("candidate")
        weights = []
        for _ in range(_STEPS):
            made = git.step()
            if made["over"]:
                break
            assert made["decided"], made
            git.commit(f"{made['phase']} {made['weight']}")
            weights.append(made["weight"])
        assert made["phase"] == "promoted", made
        assert weights == [0, 25, 50, 100, 100, 100]
        assert stage.gone("m-v1")
        assert git.call("drift", str(git.folder)) == (0, _same())

        git.git("revert", "--no-edit", "HEAD")  # the commit that removed version 1
        git.apply()
        until("version 1 again", lambda: ready_there(stage, "m-v1"), _START_S)
        git.git("revert", "--no-commit", f"{start}..HEAD")
        git.commit("the rollout taken back")
        until("its route", lambda: target.observed(NAME) == {"m-v1": 100})
        assert stage.gone("m-v2")
        assert git.git("diff", start, "HEAD", "--stat") == ""
    assert users.failures == []


def test_a_change_on_the_cluster_is_found(git: Git) -> None:
    stage, target = git.stage, git.target
    first(target.cluster, stage.spec(), stage.release(1), target.traffic)
    git.commit("first version")
    until("version 1", lambda: ready_there(stage, "m-v1"), _START_S)
    kubectl(stage, "patch", "isvc", "m-v1", "--type=merge", "-p", _PATCH)
    code, said = git.call("drift", str(git.folder))
    assert (code, "spec.predictor.minReplicas: Git 1, cluster 2" in said) == (4, True)
    kubectl(stage, "delete", "httproute", NAME)
    code, said = git.call("drift", str(git.folder))
    assert (code, f"HTTPRoute/{NAME}: in Git, not on the cluster" in said) == (4, True)


_PATCH = '{"spec": {"predictor": {"minReplicas": 2, "maxReplicas": 2}}}'


def ready_there(stage: Stage, service: str) -> bool:
    found = stage.target.cluster.get("InferenceService", service)
    return found is not None and ready(found)[0]


def _same() -> str:
    return NO_REGISTRY.replace("moved", "compared") + "\nno difference\n"
