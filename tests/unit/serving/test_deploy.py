"""Replace when ready: users see the old version until the new one answers."""

from __future__ import annotations

import pytest

from penstock.core.errors import Conflict, NotReady
from penstock.core.identity import Digest
from penstock.core.spec import ModelSpec
from serving.cluster import Kind, Object
from serving.deploy import Deployed, deploy
from serving.manifests import Release, inference_service, weights_of
from tests.fakes.cluster import MemoryCluster

SPEC = ModelSpec.model_validate(
    {"name": "m", "source": "hf://a/b", "rollout": {"ready_timeout_s": 1}}
)


class World(MemoryCluster):
    """A cluster whose controller answers at once; says what happened, in order."""

    def __init__(self, *, starts: bool = True) -> None:
        super().__init__()
        self.starts = starts
        self.happened: list[str] = []
        self.conflicts = 0

    def create(self, obj: Object) -> Object:
        made = super().create(obj)
        self.happened.append(f"create {obj['metadata']['name']}")
        if obj["kind"] == "InferenceService":
            condition = {"type": "Ready", "status": str(self.starts), "message": "out of memory"}
            made = self.replace_status({**made, "status": {"conditions": [condition]}})
        return made

    def replace(self, obj: Object) -> Object:
        if self.conflicts:
            self.conflicts -= 1
            raise Conflict("somebody was faster")
        self.happened.append(f"replace {obj['metadata']['name']}")
        return super().replace(obj)

    def delete(self, kind: Kind, name: str) -> None:
        self.happened.append(f"delete {name}")
        super().delete(kind, name)

    def routed(self) -> dict[str, int]:
        found = self.get("HTTPRoute", "m")
        return weights_of(found) if found else {}

    def deploy(self, version: int) -> Deployed:
        release = Release(version, "file:///x", Digest.of(b"x"))
        return deploy(self, SPEC, release, observed=self.routed)


def test_the_first_version_gets_all_traffic() -> None:
    world = World()
    deployed = world.deploy(1)
    assert (deployed.weights, deployed.replaced) == ({"m-v1": 100}, ())
    assert world.routed() == {"m-v1": 100}


def test_the_old_version_goes_after_the_route_left_it() -> None:
    world = World()
    world.deploy(1)
    world.happened.clear()
    assert world.deploy(2).replaced == ("m-v1",)
    assert world.happened == ["create m-v2", "replace m", "delete m-v1"]


def test_deploying_what_is_served_writes_nothing() -> None:
    world = World()
    world.deploy(1)
    world.happened.clear()
    assert world.deploy(1).replaced == ()
    assert world.happened == []


def test_a_version_that_does_not_start_leaves_everything_as_it_was() -> None:
    world = World()
    world.deploy(1)
    world.starts = False
    with pytest.raises(NotReady, match="out of memory") as problem:
        world.deploy(2)
    assert "ready_timeout_s" in problem.value.hint
    assert world.routed() == {"m-v1": 100}
    assert [o["metadata"]["name"] for o in world.list("InferenceService")] == ["m-v1"]


def test_a_version_with_traffic_is_not_removed() -> None:
    world = World()
    world.deploy(1)
    served = world.get("InferenceService", "m-v1")
    assert served is not None
    condition = {"type": "Ready", "status": "False", "message": "the node is gone"}
    world.replace_status({**served, "status": {"conditions": [condition]}})
    with pytest.raises(NotReady, match="the node is gone"):
        world.deploy(1)
    assert world.get("InferenceService", "m-v1") is not None


def test_what_an_interrupted_deployment_left_is_removed_when_it_does_not_start() -> None:
    world = World(starts=False)
    world.create(inference_service(SPEC, Release(1, "file:///x", Digest.of(b"x"))))
    with pytest.raises(NotReady):
        world.deploy(1)
    assert world.list("InferenceService") == []


def test_a_conflict_is_read_again() -> None:
    world = World()
    world.deploy(1)
    world.conflicts = 3
    world.deploy(2)
    assert world.routed() == {"m-v2": 100}


def test_other_models_are_left_alone() -> None:
    world = World()
    world.deploy(1)
    other = SPEC.model_copy(update={"name": "other"})
    release = Release(1, "file:///y", Digest.of(b"y"))
    deploy(world, other, release, observed=lambda: {"other-v1": 100})
    assert world.routed() == {"m-v1": 100}
    assert len(world.list("InferenceService")) == 2
