"""The Roles that ship grant what is done, and nothing that nobody does."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import yaml

from penstock.cli.rollout_keeper import Duty, Keeper
from penstock.core.spec import Rollout
from serving import controller as acting
from serving.cluster import ANY, Kind, Object
from serving.kserve.facts import Facts
from serving.kserve.traffic import LlmTraffic
from serving.kube.calls import Verb
from serving.kube.kinds import RESOURCES
from serving.manifests import route
from serving.rollout.loan import Loan
from serving.rollout.record import OVER, first_record
from serving.targets.checks import rights_for
from serving.targets.configmaps import ConfigMapLog
from tests.fakes.cluster import MemoryCluster
from tests.fakes.world import CANDIDATE, NAME, STABLE, StreamWorld, services
from tests.unit.serving.kserve.objects import release, spec

DEPLOY = Path(__file__).resolve().parents[3] / "deploy"
OF_TRAINING: set[tuple[Verb, Kind]] = {
    *(("get", "TrainJob"), ("create", "TrainJob"), ("delete", "TrainJob")),
    *(("get", "TrainingRuntime"), ("create", "TrainingRuntime"), ("delete", "TrainingRuntime")),
}
"""Where `training.distributed` is set (components/training/remote.py)."""

OF_PODS: set[tuple[Verb, Kind]] = {("list", "Pod"), ("list", "Event")}
"""Counters and diagnosis ask for them, beside the `Cluster` protocol."""


FROM_OUTSIDE = ("get", "pods/proxy")
"""How counters are read where pods cannot be reached (serving/targets/scrape.py)."""


class Noting(MemoryCluster):
    """A cluster that notes what is done, in RBAC's words."""

    def __init__(self) -> None:
        super().__init__()
        self.done = set[tuple[Verb, Kind]]()

    def get(self, kind: Kind, name: str) -> Object | None:
        self.done.add(("get", kind))
        return super().get(kind, name)

    def list(self, kind: Kind, *, labels: Mapping[str, str] = ANY) -> list[Object]:
        self.done.add(("list", kind))
        return super().list(kind, labels=labels)

    def create(self, obj: Object, *, dry_run: bool = False) -> Object:
        self.done.add(("create", obj["kind"]))
        return super().create(obj, dry_run=dry_run)

    def replace(self, obj: Object, *, dry_run: bool = False) -> Object:
        self.done.add(("update", obj["kind"]))
        return super().replace(obj, dry_run=dry_run)

    def delete(self, kind: Kind, name: str, **more: Any) -> None:
        self.done.add(("delete", kind))
        super().delete(kind, name, **more)

    def watch(self, kind: Kind, *, timeout_s: float) -> Iterator[Object]:
        self.done.add(("watch", kind))
        return super().watch(kind, timeout_s=timeout_s)


class Clocked(StreamWorld):
    """A world in which a second passes with every look."""

    def seen(self, record: Any) -> Any:
        self.now += 1.0
        return super().seen(record)


def _granted(path: str) -> set[tuple[str, str]]:
    return {
        (verb, f"{resource}.{group}" if group else resource)
        for rule in next(yaml.safe_load_all((DEPLOY / path).read_text()))["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def _named(rights: set[tuple[Verb, Kind]]) -> set[tuple[str, str]]:
    return {(verb, RESOURCES[kind].full_name) for verb, kind in rights}


def _kept(folder: Path, wrong: tuple[float, float]) -> set[tuple[Verb, Kind]]:
    """Return what a controller does from a rollout's begin to its end."""
    cluster, policy, before = Noting(), Rollout(soak_s=2.0), acting.FileLog(folder)
    services(cluster)
    world = Clocked(cluster, wrong, pairs=600, requests=4000)
    first = first_record(CANDIDATE, STABLE, policy, world.now)
    acting.begin(cluster, before, NAME, first, policy)
    cluster.done.clear()
    duty = Duty(cluster, ConfigMapLog(cluster), lambda *_: nullcontext(world), "me", lambda _: None)

    async def keep() -> None:
        await Keeper(duty, threads=1, look_s=0.0, scan_s=0.02).run(once=True)

    asyncio.run(keep())
    done, obj = set(cluster.done), cluster.get("HTTPRoute", NAME)
    assert obj is not None
    assert obj["metadata"]["annotations"][acting.PHASE] in OVER
    return done


def _lent(folder: Path) -> set[tuple[Verb, Kind]]:
    """Return what it takes to have a version lend its replicas."""
    cluster, policy, log = Noting(), Rollout(), acting.FileLog(folder)
    for name in (STABLE, CANDIDATE):
        pods = {"predictor": {"minReplicas": 2}}
        cluster.create({"kind": "InferenceService", "metadata": {"name": name}, "spec": pods})
    cluster.create(route(NAME, {STABLE: 100}))
    world = StreamWorld(cluster)
    first = first_record(CANDIDATE, STABLE, policy, world.now)
    loan = Loan(STABLE, 2, 1, CANDIDATE, 1, 1)
    acting.begin(cluster, log, NAME, first, policy, loan=loan)
    cluster.done.clear()
    acting.Controller(cluster, ConfigMapLog(cluster), world, "me").look(NAME)
    return set(cluster.done)


def _followed() -> set[tuple[Verb, Kind]]:
    """Return what it takes to have the members of a group follow our route."""
    cluster, traffic = Noting(), LlmTraffic(Facts("models"))
    cluster.create(traffic.version(spec(), release()))
    cluster.done.clear()
    traffic.enforce(cluster, traffic.carrying("chat", {"chat-v1": 100}))
    return set(cluster.done)


def test_the_controller_may_do_what_it_does_and_no_more(tmp_path: Path) -> None:
    done = _kept(tmp_path / "good", (0.0, 0.0)) | _kept(tmp_path / "bad", (0.05, 0.05))
    done |= _lent(tmp_path / "lent")
    members: set[tuple[Verb, Kind]] = {
        (verb, "LLMInferenceService") for verb, kind in done if kind == "InferenceService"
    }
    istio: set[tuple[Verb, Kind]] = {
        (verb, "VirtualService") for verb, kind in done if kind == "HTTPRoute"
    }
    needed = done | members | istio | _followed() | OF_PODS
    assert _granted("controller/role.yaml") == _named(needed)


def test_a_runner_may_do_what_is_asked_for_before_a_run_and_no_more() -> None:
    mechanisms = ("route", "llmisvc", "istio")
    asked = {right for chosen in mechanisms for right in rights_for(chosen)}
    assert _granted("runner/role.yaml") == _named(asked | OF_TRAINING) | {FROM_OUTSIDE}
