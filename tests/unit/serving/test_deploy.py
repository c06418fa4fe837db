"""Replace when ready: users see the old version until the new one answers."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.core.errors import ConfigurationError, Conflict, NotReady
from penstock.core.identity import Digest
from penstock.core.spec import ModelSpec, Rollout
from serving import controller as acting
from serving.cluster import Kind, Object
from serving.deploy import Deployed, Site, deploy, propose, rehearse, revert
from serving.manifests import Release, inference_service, weights_of
from serving.rollout.record import first_record
from tests.fakes.cluster import MemoryCluster
from tests.fakes.world import StreamWorld

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

    def create(self, obj: Object, *, dry_run: bool = False) -> Object:
        made = super().create(obj, dry_run=dry_run)
        self.happened.append(f"create {obj['metadata']['name']}")
        if obj["kind"] == "InferenceService":
            condition = {"type": "Ready", "status": str(self.starts), "message": "out of memory"}
            made = self.replace_status({**made, "status": {"conditions": [condition]}})
        return made

    def replace(self, obj: Object, *, dry_run: bool = False) -> Object:
        if self.conflicts:
            self.conflicts -= 1
            raise Conflict("somebody was faster")
        self.happened.append(f"replace {obj['metadata']['name']}")
        return super().replace(obj, dry_run=dry_run)

    def delete(
        self, kind: Kind, name: str, *, read: Object | None = None, foreground: bool = False
    ) -> None:
        self.happened.append(f"delete {name}")
        super().delete(kind, name, read=read, foreground=foreground)

    def routed(self) -> dict[str, int]:
        found = self.get("HTTPRoute", "m")
        return weights_of(found) if found else {}

    def deploy(self, version: int) -> Deployed:
        release = Release(version, "file:///x", Digest.of(b"x"))
        return deploy(Site(self, self.routed), SPEC, release)


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


def test_a_rehearsal_raises_what_creating_would_and_changes_nothing() -> None:
    class Refusing(World):
        def create(self, obj: Object, *, dry_run: bool = False) -> Object:
            raise Conflict(f"a webhook says no, {dry_run=}")

    release = Release(1, "file:///x", Digest.of(b"x"))
    with pytest.raises(Conflict, match="dry_run=True"):
        rehearse(Refusing(), SPEC, release)
    cluster = MemoryCluster()
    rehearse(cluster, SPEC, release)
    assert cluster.list("InferenceService") == []
    propose(cluster, SPEC, release)
    rehearse(cluster, SPEC, release)  # a run that goes on from where it was interrupted


def test_other_models_are_left_alone() -> None:
    world = World()
    world.deploy(1)
    other = SPEC.model_copy(update={"name": "other"})
    release = Release(1, "file:///y", Digest.of(b"y"))
    deploy(Site(world, lambda: {"other-v1": 100}), other, release)
    assert world.routed() == {"m-v1": 100}
    assert len(world.list("InferenceService")) == 2


def _promoted(folder: Path) -> World:
    """Return a world in which version 2 was promoted by evidence, and version 1 removed."""
    world = World()
    world.deploy(1)
    release = Release(2, "file:///two", Digest.of(b"two"))
    propose(world, SPEC, release)
    policy = Rollout(soak_s=0.0)
    seen, log = StreamWorld(world, pairs=600, requests=4000), acting.FileLog(folder)
    acting.begin(world, log, "m", first_record("m-v2", "m-v1", policy, seen.now), policy)
    owner = acting.Controller(world, log, seen, "one")
    while world.get("InferenceService", "m-v1") is not None:
        owner.look("m")
        seen.now += 1.0
    return world


def test_a_promotion_is_reverted_from_its_snapshot_and_back(tmp_path: Path) -> None:
    world = _promoted(tmp_path)
    first = inference_service(SPEC, Release(1, "file:///x", Digest.of(b"x")))
    world.happened.clear()
    done = revert(Site(world, world.routed), "m", 1.0)
    assert (done.service, done.replaced) == ("m-v1", ("m-v2",))
    assert world.happened == ["create m-v1", "replace m", "delete m-v2"]
    again = world.get("InferenceService", "m-v1")
    assert again is not None
    assert again["spec"] == first["spec"]
    assert again["metadata"]["annotations"] == first["metadata"]["annotations"]
    assert revert(Site(world, world.routed), "m", 1.0).service == "m-v2"
    assert world.routed() == {"m-v2": 100}


def test_a_version_before_that_does_not_start_changes_nothing(tmp_path: Path) -> None:
    world = _promoted(tmp_path)
    world.starts = False
    with pytest.raises(NotReady, match="out of memory"):
        revert(Site(world, world.routed), "m", 1.0)
    assert world.routed() == {"m-v2": 100}
    assert [o["metadata"]["name"] for o in world.list("InferenceService")] == ["m-v2"]


def test_where_nothing_was_promoted_there_is_nothing_to_revert_to(tmp_path: Path) -> None:
    world = World()
    world.deploy(1)
    with pytest.raises(ConfigurationError, match="nothing was promoted"):
        revert(Site(world, world.routed), "m", 1.0)
    policy = Rollout()
    first = first_record("m-v2", "m-v1", policy, 0.0)
    acting.begin(world, acting.FileLog(tmp_path), "m", first, policy)
    with pytest.raises(ConfigurationError, match="goes on") as problem:
        revert(Site(world, world.routed), "m", 1.0)
    assert "penstock rollout rollback m" in problem.value.hint


def test_a_version_that_a_rollout_compares_with_is_not_deployed_over_it(tmp_path: Path) -> None:
    """Somebody runs the old spec again while its successor has users."""
    world, policy = World(), Rollout()
    world.deploy(1)
    propose(world, SPEC, Release(2, "file:///two", Digest.of(b"two")))
    first = first_record("m-v2", "m-v1", policy, 0.0)
    acting.begin(world, acting.FileLog(tmp_path), "m", first, policy)
    before = world.get("HTTPRoute", "m")
    with pytest.raises(ConfigurationError, match="a rollout of m-v2 goes on"):
        world.deploy(1)
    assert world.get("HTTPRoute", "m") == before
    assert world.get("InferenceService", "m-v2") is not None


def test_what_is_gone_back_to_does_not_replace_a_version_that_came_meanwhile(
    tmp_path: Path,
) -> None:
    world = _promoted(tmp_path)

    def somebody_moves_the_users(_: float) -> None:
        route, served = world.get("HTTPRoute", "m"), world.get("InferenceService", "m-v1")
        assert route is not None
        assert served is not None
        world.replace(acting.LOCAL.weighted(route, {"m-v3": 100}))
        world.replace_status(
            {**served, "status": {"conditions": [{"type": "Ready", "status": "True"}]}}
        )

    world.starts = False
    site = Site(world, world.routed, on_wait=somebody_moves_the_users)
    with pytest.raises(Conflict, match="m-v2 was to be replaced"):
        revert(site, "m", 5.0)
    assert world.routed() == {"m-v3": 100}
    assert [o["metadata"]["name"] for o in world.list("InferenceService")] == ["m-v2"]
