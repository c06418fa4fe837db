"""A place that is written into a folder, and seen on its cluster."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from penstock.core.spec import KServe, Rollout
from serving import controller as acting
from serving.deploy import propose
from serving.doors import Door
from serving.gitops.steps import Told, first
from serving.kserve.traffic import RouteTraffic
from serving.rollout.record import Record, first_record
from serving.sources.replay import Prompt
from serving.targets.kserve import ClusterTarget
from serving.targets.rendered import RenderedTarget
from serving.targets.target import prompts_from_json
from tests.fakes.cluster import MemoryCluster
from tests.unit.serving.gitops.test_folder import files
from tests.unit.serving.kserve.objects import FACTS, release, spec

POLICY = Rollout()
PROMPTS = [Prompt(({"role": "user", "content": "hi"},), "hello")]


@dataclass
class Real:
    """A cluster, as far as a folder needs it."""

    cluster: MemoryCluster = field(default_factory=MemoryCluster)
    traffic: Any = field(default_factory=lambda: RouteTraffic(FACTS))
    where: KServe = field(default_factory=lambda: KServe(namespace="models"))
    options: str = " --namespace models"
    look_s: float = 1.0

    def observed(self, _name: str) -> dict[str, int]:
        return {"chat-v1": 100}

    def door(self, name: str) -> Door:
        return Door("http://gateway", {"Host": name})

    def why(self, _service: str) -> str:
        return ""

    def replaced(self, _service: str) -> bool:
        return False

    def counters(self, *_: str) -> Any:
        raise AssertionError("nothing is counted before the ramp")

    def serve(self, version: int, ready: str) -> None:
        made = self.cluster.create(self.traffic.version(spec(), release(version)))
        condition = {"type": "Ready", "status": ready, "message": "loading"}
        self.cluster.replace_status({**made, "status": {"conditions": [condition]}})


def _begun(folder: Path) -> tuple[Real, RenderedTarget, Record]:
    real = Real()
    target = RenderedTarget(cast(ClusterTarget, real), folder)
    first(target.cluster, spec(), release(1), target.traffic)
    target.keep_prompts("chat-v2", PROMPTS, 8)
    record = first_record("chat-v2", "chat-v1", POLICY, 1000.0)
    log, traffic = target.log, target.traffic
    record = acting.begin(target.cluster, log, "chat", record, POLICY, traffic=traffic)
    propose(target.cluster, spec(), release(2), traffic)
    return real, target, record


def test_everything_is_written_into_the_folder(tmp_path: Path) -> None:
    real, target, _ = _begun(tmp_path)
    assert real.cluster.list("InferenceService") == real.cluster.list("HTTPRoute") == []
    there = files(tmp_path)
    assert {"httproute-chat.yaml", "rollouts/chat.json", "rollouts/chat.jsonl"} <= set(there)
    prompts, tokens = prompts_from_json(there["rollouts/chat-v2.prompts.json"])
    assert ([prompt.expected for prompt in prompts], tokens) == (["hello"], 8)
    assert "namespace: models" in there["inferenceservice-chat-v2.yaml"]
    target.forget_prompts("chat-v2")
    target.forget_prompts("chat-v2")
    assert "rollouts/chat-v2.prompts.json" not in files(tmp_path)
    assert target.options == f" --namespace models --render {tmp_path}"


def test_a_version_that_is_not_applied_is_waited_for_and_not_called_deleted(tmp_path: Path) -> None:
    real, target, record = _begun(tmp_path)
    world = target.world("chat", POLICY)
    seen = world.seen(record)
    assert (seen.ready, seen.candidate_exists, seen.stable_exists) == (False, True, True)
    assert "not on the cluster yet" in seen.why
    real.serve(2, "False")
    assert world.seen(record).why == "loading"
    target.cluster.delete("InferenceService", "chat-v2")
    assert not world.seen(record).candidate_exists, "the folder says what is to be there"
    world.close()


def test_what_the_cluster_says_is_what_the_next_step_goes_by(tmp_path: Path) -> None:
    real, target, _ = _begun(tmp_path)
    real.serve(1, "True")
    real.serve(2, "False")
    assert target.told("chat") == Told({"chat-v1": True, "chat-v2": False}, {"chat-v1": 100})
