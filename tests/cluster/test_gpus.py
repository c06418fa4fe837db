"""Devices on a node with two that are not there: what fits, what is refused, and what is lent.

The engine is Penstock's own, behind the name of vLLM's runtime: it asks for devices as vLLM does,
and needs none. Somebody looks after rollouts, and users ask all the time.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from penstock.core.spec import ModelSpec
from serving import controller as acting
from serving import deploy as serving_versions
from serving.cluster import Kind, Object
from serving.completer import Message
from serving.gpus.surge import Beside, Borrow, Decision, Refuse, Swap
from serving.kserve.facts import Facts
from serving.kserve.runtimes import cpu_container
from serving.kserve.serving_runtimes import serving_runtime
from serving.kube import connect
from serving.kube.errors import Refused
from serving.manifests import replicas_of, service_name
from serving.rollout.record import Record, first_record
from serving.runtimes.catalog import RUNTIMES
from serving.sources.replay import Prompt
from serving.targets.kserve import ClusterTarget, storage_of
from serving.targets.probe import look
from tests.cluster.images import taken_for
from tests.cluster.places import REPOSITORY
from tests.cluster.served import account, kubectl
from tests.cluster.stage import NAME, PATIENT, Stage
from tests.cluster.waiting import until
from tests.unit.serving.kserve.objects import beside

pytestmark = [pytest.mark.cluster, pytest.mark.wider, pytest.mark.alone, pytest.mark.enable_socket]

_S = 300.0
_CPU, _NEVER = "400m", "100"
"""Of a replica; and of one that no node of this machine has."""

_KINDS: tuple[Kind, ...] = ("InferenceService", "HTTPRoute", "PodDisruptionBudget")
_PROMPTS = [Prompt((Message(role="user", content=f"what is {n}?"),)) for n in range(400)]


def _runtime(facts: Facts) -> Object:
    """Return vLLM's runtime with Penstock's engine in it, which is told no word of vLLM's."""
    made, own = serving_runtime(RUNTIMES["vllm"], facts), cpu_container(facts)
    (container,) = made["spec"]["containers"]
    words = " ".join([*own["command"], *own["args"], f"--model-name={NAME}"])
    instead = {"command": ["sh", "-c", f"exec {words}", "engine"], "args": []}
    made["spec"]["containers"] = [{**container, **own, **instead}]
    return made


class Devices:
    """A model whose pods have a device each."""

    def __init__(self, stage: Stage, registry: str) -> None:
        self.stage, self.target = stage, stage.target
        stage.prepare(runtime=False)
        # pods that name vLLM's image, as a version of it does, run Penstock's engine's
        ours = cpu_container(self.target.facts)["image"]
        taken_for(registry, ours, [RUNTIMES["vllm"].image])
        self.target.cluster.create(_runtime(self.target.facts))

    def spec(self, replicas: int, *, cpu: str = _CPU, **policy: Any) -> ModelSpec:
        """Return the model's spec, with a policy about devices."""
        self.stage.policy = PATIENT.model_copy(update=policy)
        hardware = {"accelerator": "nvidia-l4", "cpu": cpu, "memory": "1Gi"}
        return self.stage.spec(hardware=hardware, runtime="vllm", replicas=replicas)

    def serve(self, version: int, replicas: int) -> None:
        """Serve a version to everybody."""
        spec = self.spec(replicas, ready_timeout_s=_S)
        serving_versions.deploy(self.stage.site, spec, self.stage.release(version))

    def decided(self, version: int, spec: ModelSpec) -> Decision:
        """Return what is decided about a candidate; nothing is done."""
        stable = acting.stable_of(self.target.cluster, NAME, self.target.traffic)
        return self.target.surge(spec, service_name(NAME, version), stable)

    def begin(self, version: int, spec: ModelSpec) -> Decision:
        """Make a version a candidate, as `penstock run` does; return what was decided."""
        target, service = self.target, service_name(NAME, version)
        decided = self.decided(version, spec)
        assert not isinstance(decided, Refuse), decided
        loan = None if isinstance(decided, Beside) else decided.loan
        target.keep_prompts(service, _PROMPTS, 8)
        stable = acting.stable_of(target.cluster, NAME, target.traffic)
        first = first_record(service, stable, spec.rollout, time.time())
        cluster, traffic = target.cluster, target.traffic
        acting.begin(cluster, target.log, NAME, first, spec.rollout, traffic=traffic, loan=loan)
        release = self.stage.release(version)
        serving_versions.propose(cluster, spec, release, traffic, loan=loan)
        return decided

    def until(self, version: int, *phases: str) -> Record:
        """Wait until a candidate's rollout is in one of some phases."""
        service = service_name(NAME, version)

        def there(record: Record) -> bool:
            return record.candidate == service and (record.phase in phases or record.over)

        record = self.stage.until(there, seconds=2 * _S)
        assert record.phase in phases, (record.phase, record.reason, self.stage.logs())
        return record

    def serves(self, version: int) -> int:
        """Return how many of a version's pods are ready."""
        pods = self.target.pods(service_name(NAME, version))
        return sum(
            each["status"] == "True"
            for pod in pods
            if "deletionTimestamp" not in pod["metadata"]
            for each in pod.get("status", {}).get("conditions", [])
            if each["type"] == "Ready"
        )

    def back_to(self, version: int, replicas: int) -> None:
        """Wait until one version is all there is, with all of its replicas."""
        cluster, service = self.target.cluster, service_name(NAME, version)
        until("the others to go", lambda: self.names() == [service], _S)
        until("its pods", lambda: self.serves(version) == replicas, _S)
        until("the route", lambda: self.target.observed(NAME) == {service: 100})
        obj = cluster.get("InferenceService", service)
        assert obj is not None
        assert replicas_of(obj) == replicas

    def names(self) -> list[str]:
        """Return the versions that are there."""
        return [o["metadata"]["name"] for o in self.target.cluster.list("InferenceService")]

    def state(self) -> Any:
        """Return what a refusal must not change."""
        cluster = self.target.cluster
        plain = {
            kind: {o["metadata"]["name"]: o["spec"] for o in cluster.list(kind)} for kind in _KINDS
        }
        marks = [o["metadata"].get("annotations") for o in cluster.list("HTTPRoute")]
        return plain, marks, [o["metadata"]["name"] for o in cluster.list("ConfigMap")]


@pytest.fixture
def devices(cluster: Any, namespace: str, tmp_path: Path) -> Devices:
    """A namespace with nothing served; the two devices are free when it begins."""
    made = Devices(Stage(namespace, tmp_path, policy=PATIENT, cpu=_CPU), cluster.registry)
    until("devices that others give back", lambda: _free(made), _S)
    return made


def _free(made: Devices) -> bool:
    return isinstance(made.decided(1, made.spec(2)), Beside)


def test_a_candidate_that_fits_runs_beside_what_is_served(devices: Devices) -> None:
    stage = devices.stage
    devices.serve(1, 1)
    with stage.driven(), stage.users(10.0) as users:
        found = devices.begin(2, devices.spec(1))
        assert isinstance(found, Beside)
        assert found.told == "1 x nvidia.com/gpu are free"
        devices.until(2, "shadow", "ramp")
        assert (devices.serves(1), devices.serves(2)) == (1, 1)
        target = devices.target
        acting.command(target.cluster, target.log, NAME, "rollback", target.traffic)
        devices.until(2, "rolled_back")
        devices.back_to(1, 1)
        assert users.failures == []


def test_one_that_does_not_fit_is_refused_and_nothing_is_changed(devices: Devices) -> None:
    devices.serve(1, 2)
    budget = devices.target.cluster.get("PodDisruptionBudget", "m-v1")
    assert budget is not None, "two replicas are not taken away at once"
    before = devices.state()
    found = devices.decided(2, devices.spec(1))
    assert isinstance(found, Refuse)
    assert "m-v2 needs 1 x nvidia.com/gpu" in found.reason
    assert "0 free" in found.reason
    assert found.change.startswith("rollout.surge: borrow (m-v1 lends 1 of 2 replicas")
    assert isinstance(devices.decided(2, devices.spec(1, surge="unchecked")), Beside)
    assert isinstance(devices.decided(2, devices.spec(1, surge="borrow", keep=2)), Refuse)
    assert devices.state() == before


def test_who_may_not_see_nodes_and_pods_does_not_know_and_goes_on(devices: Devices) -> None:
    stage = devices.stage
    role = yaml.safe_load((REPOSITORY / "deploy/runner/role.yaml").read_text())
    devices.serve(1, 2)
    spec = devices.spec(1)
    with account(stage, "runner", role["rules"]) as kubeconfig:
        where = stage.target.where
        cluster = connect(namespace=where.namespace, kubeconfig=kubeconfig)
        target = ClusterTarget(cluster, where, storage_of(stage.settings), look(cluster, where))
        found = target.surge(spec, "m-v2", "m-v1")
        assert isinstance(found, Beside)
        assert found.told == "not known whether it fits: nodes or pods cannot be listed"
        with _granted(stage):
            until("the right", lambda: isinstance(target.surge(spec, "m-v2", "m-v1"), Refuse))


@contextmanager
def _granted(stage: Stage) -> Iterator[None]:
    """Let the account `runner` see devices, as docs/gpus.md says."""
    name = f"penstock-device-reader-{stage.namespace}"
    kubectl(stage, "create", "clusterrole", name, "--verb=list", "--resource=nodes,pods")
    account_of = f"--serviceaccount={stage.namespace}:runner"
    kubectl(stage, "create", "clusterrolebinding", name, f"--clusterrole={name}", account_of)
    try:
        yield
    finally:
        kubectl(stage, "delete", "clusterrolebinding,clusterrole", name)


def test_what_is_lent_is_grown_into_or_comes_back_and_no_user_notices(devices: Devices) -> None:
    stage = devices.stage
    devices.serve(1, 2)
    with stage.driven(), stage.users(10.0) as users:
        spec = devices.spec(2, surge="borrow", ready_timeout_s=_S)
        found = devices.begin(2, spec)
        assert isinstance(found, Borrow)
        assert (found.loan.keeps, found.loan.starts, found.loan.ends) == (1, 1, 2)
        devices.until(2, "shadow", "ramp", "soak")
        assert (devices.serves(1), devices.serves(2)) == (1, 1)
        devices.until(2, "promoted")
        devices.back_to(2, 2)
        until("its budget", lambda: _budgets(stage) == ["m-v2"])
        assert users.failures == []

        found = devices.begin(3, devices.spec(1, surge="borrow", ready_timeout_s=_S))
        assert isinstance(found, Borrow)
        devices.until(3, "shadow", "ramp", "soak")
        assert (devices.serves(2), devices.serves(3)) == (1, 1)
        target = devices.target
        acting.command(target.cluster, target.log, NAME, "rollback", target.traffic)
        devices.until(3, "rolled_back")
        devices.back_to(2, 2)
        assert users.failures == []


def _budgets(stage: Stage) -> list[str]:
    listed = json.loads(kubectl(stage, "get", "poddisruptionbudgets", "-ojson"))["items"]
    return [each["metadata"]["name"] for each in listed]


def test_a_swap_has_the_gap_that_it_announces_and_comes_back_if_it_fails(devices: Devices) -> None:
    stage = devices.stage
    devices.serve(1, 2)
    with stage.driven():
        begun = time.monotonic()
        found = devices.begin(2, devices.spec(2, surge="swap", ready_timeout_s=_S))
        assert isinstance(found, Swap)
        assert f"nobody is served for up to {_S:g} s" in found.told
        record = devices.until(2, "soak", "promoted")
        took_s = time.monotonic() - begun
        print(f"from stop to all traffic: {took_s:.0f} s of {found.gap_s:g} s that were announced")
        assert took_s <= found.gap_s
        assert record.evidence.pairs == 0
        devices.until(2, "promoted")
        devices.back_to(2, 2)
        with stage.users(10.0) as users:
            until("users", lambda: users.asked > 20)
        assert users.failures == []

        begun = time.monotonic()
        failing = devices.spec(2, cpu=_NEVER, surge="swap", ready_timeout_s=30.0)
        assert isinstance(devices.begin(3, failing), Swap)
        record = devices.until(3, "rolled_back")
        assert "the candidate is not ready after " in record.reason
        devices.back_to(2, 2)
        print(
            f"a swap that failed, until what was served is again: {time.monotonic() - begun:.0f} s"
        )
        with stage.users(10.0) as users:
            until("users", lambda: users.asked > 20)
        assert users.failures == []


def test_the_api_server_takes_what_lies_beside_a_version(devices: Devices) -> None:
    """It reads the claims' expressions, too."""
    cluster = devices.target.cluster
    for name, obj in beside().items():
        own = {**obj, "metadata": {**obj["metadata"]}}
        own["metadata"].pop("ownerReferences", None)  # of a version that is not there
        cluster.create(own, dry_run=True)
        if obj["kind"] == "ResourceClaimTemplate":
            (request,) = obj["spec"]["spec"]["devices"]["requests"]
            wrong = {**request["exactly"], "selectors": [{"cel": {"expression": "device.gpu >"}}]}
            broken = {"spec": {"devices": {"requests": [{**request, "exactly": wrong}]}}}
            with pytest.raises(Refused, match="expression"):
                cluster.create({**own, "spec": broken}, dry_run=True)
        print(f"{name}: accepted")


def test_a_pod_has_its_device_and_the_inventory_sees_it(devices: Devices) -> None:
    devices.serve(1, 1)
    (pod,) = devices.target.pods("m-v1")
    (engine,) = pod["spec"]["containers"]
    assert engine["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"} in pod["spec"][
        "tolerations"
    ]
    seen = subprocess.run(
        ["kubectl", "-n", devices.stage.namespace, "exec", pod["metadata"]["name"], "--",
         "python3", "-c", "import os; print(os.environ['NVIDIA_VISIBLE_DEVICES'])"],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    assert seen.startswith("GPU-fake-")
    assert devices.decided(2, devices.spec(1)).__class__ is Beside
    assert devices.decided(2, devices.spec(2)).__class__ is Refuse
