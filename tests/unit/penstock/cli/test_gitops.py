"""`penstock drift`, `adopt`, `leave` and `rollout … --render`, as a person types them."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from components.steps.context import Context
from components.steps.rollout import rollout
from penstock.cli.app import app
from penstock.core.errors import LifecycleError
from penstock.core.settings import Settings
from penstock.core.spec import Rollout
from serving import controller as acting
from serving.cluster import Cluster
from serving.deploy import propose
from serving.gitops.folder import FolderCluster
from serving.gitops.steps import first
from serving.rollout.record import first_record
from tests.fakes.apiserver import api_server
from tests.unit.serving.adoption.objects import TRAFFIC, isvc
from tests.unit.serving.gitops.test_folder import files
from tests.unit.serving.kserve.objects import release, spec

MODELS = ("--namespace", "models")


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """A cluster that the commands reach, from a home without a registry."""
    monkeypatch.setenv("PENSTOCK_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with api_server(tmp_path) as server, server.cluster() as found:
        config = (
            tmp_path / ".kube" / "config"
        )  # KUBECONFIG is read once, by the first that connects
        config.parent.mkdir()
        config.write_text(server.kubeconfig().read_text())
        monkeypatch.setenv("HOME", str(tmp_path))
        yield found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What Git has: version 1, and version 2 as its candidate."""
    git = FolderCluster(tmp_path / "git", "models")
    first(git, spec(), release(1), TRAFFIC)
    policy, log = Rollout(), acting.FileLog(tmp_path / "git" / "rollouts")
    record = first_record("chat-v2", "chat-v1", policy, time.time())
    acting.begin(git, log, "chat", record, policy, traffic=TRAFFIC)
    propose(git, spec(), release(2), TRAFFIC)
    return tmp_path / "git"


def _call(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def _said(*words: object) -> str:
    result = _call(*words)
    assert result.exception is None, (result.output, result.exception)
    return result.output


def _refused(*words: object) -> LifecycleError:
    result = _call(*words)
    assert isinstance(result.exception, LifecycleError), result.output
    return result.exception


def _apply(folder: Path, cluster: Cluster) -> None:
    git = FolderCluster(folder, "models")
    for obj in [*git.list("InferenceService"), *git.list("HTTPRoute")]:
        metadata = {k: v for k, v in obj["metadata"].items() if k not in ("uid", "resourceVersion")}
        cluster.create({**obj, "metadata": metadata})


def test_drift_between_git_and_cluster_is_told_by_field(cluster: Cluster, folder: Path) -> None:
    problem = _refused("drift", folder, *MODELS)
    assert (problem.exit_code, str(problem)) == (4, "3 differences")
    _apply(folder, cluster)
    assert "no difference" in _said("drift", folder, *MODELS)
    route = cluster.get("HTTPRoute", "chat")
    assert route is not None
    backends = route["spec"]["rules"][0]["backendRefs"]
    backends[0]["weight"] = 50
    cluster.replace(route)
    result = _call("drift", folder, *MODELS, "--output", "json")
    assert result.exit_code == 4
    (found,) = json.loads(result.output)["findings"]
    assert found == {
        "what": "differs",
        "where": "HTTPRoute/chat",
        "path": "spec.rules[0].backendRefs[0].weight",
        "wanted": "100",
        "found": "50",
    }


def test_commands_of_a_cluster_want_one() -> None:
    for words in (("drift",), ("adopt", "old"), ("leave", "m")):
        assert _refused(*words).hint == "--namespace N names it"


def test_an_adoption_is_said_before_it_is_done(cluster: Cluster) -> None:
    made = cluster.create(isvc())
    ready = {"type": "Ready", "status": "True"}
    cluster.replace_status({**made, "status": {"conditions": [ready]}})
    said = _said("adopt", "old", "--dry-run", *MODELS)
    assert said.startswith("1. create HTTPRoute m: so that proxies know it; leads nobody yet")
    assert "2. replace HTTPRoute m: m-models.example.com, m.models.example.com: old gets" in said
    assert cluster.list("HTTPRoute") == []
    for words in (("adopt", "old"), ("leave", "m")):
        problem = _refused(*words, *MODELS, "--mode", "llmisvc")
        assert "one routing group from their creation on" in str(problem)
        assert "--mode route" in problem.hint


def test_a_departure_is_said_before_it_is_done(cluster: Cluster) -> None:
    assert "nothing of Penstock's" in _said("leave", "chat", *MODELS)
    cluster.create(TRAFFIC.version(spec(), release(1)))
    cluster.create(TRAFFIC.carrying("chat", {"chat-v1": 100}))
    first_line, *_, last = _said("leave", "chat", "--dry-run", *MODELS).splitlines()
    assert first_line.startswith("1. create HTTPRoute chat-v1-users")
    assert last.startswith("4. delete HTTPRoute chat")
    assert cluster.get("HTTPRoute", "chat") is not None


def test_what_a_person_asks_for_is_done_by_the_next_step(cluster: Cluster, folder: Path) -> None:
    step = ("rollout", "step", "chat", "--render", folder, "--timeout", 0, *MODELS)
    assert "it is in the folder, and not on the cluster yet" in _said(*step)
    assert "rollback is written down" in _said(
        "rollout", "rollback", "chat", "--render", folder, *MODELS
    )
    made = json.loads(_said(*step, "--output", "json"))
    assert (made["phase"], made["reason"]) == ("rolled_back", "a person asked for it")
    assert "chat" in _said("rollout", "status", "--render", folder, *MODELS)
    assert cluster.list("HTTPRoute") == [], "nothing was written to the cluster"
    assert "HTTPRoute" in files(folder)["httproute-chat.yaml"]


def test_a_step_wants_the_folder_and_a_cluster(folder: Path) -> None:
    assert "--render DIR" in _refused("rollout", "step", "chat").hint
    problem = _refused("rollout", "step", "chat", "--render", folder)
    assert (problem.exit_code, "this machine is none" in str(problem)) == (2, True)


def test_a_run_that_renders_leaves_the_rollout_to_steps(
    cluster: Cluster, folder: Path, tmp_path: Path
) -> None:
    settings = Settings(home=tmp_path / "home", render=folder)
    context = Context(settings, tmp_path, "rollout")
    model = spec(target={"kserve": {"namespace": "models"}}).to_json()
    assert rollout(context, model, "2") == "rendered"
    assert f"penstock rollout step chat --namespace models --render {folder}" in str(context.detail)
    assert rollout(context, model, "1") == "first"
    assert cluster.list("HTTPRoute") == []
