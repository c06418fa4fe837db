"""Disturbances of a rollout: what is done, when, and how it is undone.

A component that is killed is started again by the cluster's supervisor (`restarts.py`), Envoy by
the kubelet, the controller here, as its Deployment would.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType

import httpx

from penstock.core.errors import Conflict
from serving.rollout.record import Record
from tests.cluster import components
from tests.cluster.places import API_PORT, NODE_IP, chosen
from tests.cluster.stage import NAME, Stage
from tests.cluster.waiting import pause, until

CUT_S = 60.0
_CONTROLLER_BACK_S = 2.0
_GROUP = 61000
"""The controller's, so that its packets can be told from everybody else's."""

_TABLE = "inet penstock_chaos"
_KSERVE = ("kserve-manager", "kserve-llmisvc")
_HEALTH = (components.KSERVE_HEALTH, components.LLMISVC_HEALTH, components.ENVOY_GATEWAY_HEALTH)


class Deployed:
    """`penstock controller`, and its Deployment."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._process = stage.controller(group=_GROUP)

    def killed(self) -> None:
        """Kill it, and start another."""
        self._process.kill()
        self._process.wait(10)
        pause(_CONTROLLER_BACK_S)
        self._process = self._stage.controller(group=_GROUP)

    def end(self) -> None:
        """Stop it for good."""
        self._process.terminate()
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()


@dataclass(frozen=True, slots=True)
class Scene:
    """A rollout and who looks after it."""

    stage: Stage
    controller: Deployed


@contextmanager
def driven(stage: Stage) -> Iterator[Scene]:
    """Have a controller look after rollouts until the block ends."""
    deployed = Deployed(stage)
    try:
        yield Scene(stage, deployed)
    finally:
        deployed.end()


Moment = Callable[[Record], bool]
MOMENTS: dict[str, Moment] = {
    "deploying": lambda _: True,
    "shadow": lambda record: record.phase not in ("deploying", "warmup"),
    "25 %": lambda record: record.weight >= 25 or record.over,
    "50 %": lambda record: record.weight >= 50 or record.over,
    "soak": lambda record: record.weight == 100 or record.over,
}
"""A rollout that is past a moment is disturbed at once, and one that is over not at all."""


@dataclass(frozen=True, slots=True)
class Disturbance:
    """What is done to a rollout."""

    act: Callable[[Scene], None]
    unharmed: tuple[str, ...] = tuple(MOMENTS)
    """Moments at which no user may notice."""


def pid_of(name: str) -> int:
    """Return a component's process, as it is numbered inside the cluster."""
    state = json.loads(chosen().state.read_text())
    return int(state["components"][name])


def killed(*names: str) -> None:
    """Kill components and wait until they are started again."""
    before = {name: pid_of(name) for name in names}
    for pid in before.values():
        os.kill(pid, signal.SIGKILL)
    for name, pid in before.items():
        until(f"{name} is started again", lambda n=name, p=pid: pid_of(n) != p)  # type: ignore[misc]


def kill(*names: str) -> Callable[[Scene], None]:
    """Return what kills components, whatever the rollout is."""
    return lambda _: killed(*names)


def kill_controller(scene: Scene) -> None:
    """Kill `penstock controller`; the next one waits for the lease to run out."""
    scene.controller.killed()


def kill_envoy(_: Scene) -> None:
    """Kill the proxy that all users go through; the kubelet starts it again."""
    for pid in _processes("envoy"):
        os.kill(pid, signal.SIGKILL)


def delete_pod(scene: Scene) -> None:
    """Delete the candidate's pod; its Deployment makes another."""
    target, candidate = scene.stage.target, scene.stage.record.candidate
    until("the candidate has a pod", lambda: target.pods(candidate))
    for pod in target.pods(candidate):
        target.cluster.delete("Pod", pod["metadata"]["name"])


def cut_off(_: Scene) -> None:
    """Drop every packet of the controller to the API server, for a minute."""
    rule = f"meta skgid {_GROUP} ip daddr {NODE_IP} tcp dport {API_PORT} drop"
    chain = f"chain out {{ type filter hook output priority 0; {rule}; }};"
    subprocess.run(["nft", f"table {_TABLE} {{ {chain} }}"], check=True, timeout=10)
    try:
        pause(CUT_S)
    finally:
        subprocess.run(["nft", f"delete table {_TABLE}"], check=True, timeout=10)


UNREACHED = "Cannot connect to host"
"""What a user gets who comes while the only gateway has no address: a kubelet (1.34) that starts
again takes its pods for not ready until it has asked them, for 3 to 9 s here. With gateways on two
nodes nobody would notice."""

DEAF_S = 180.0
"""How long controllers (the gateway's, KServe's, Kubernetes' own) may not hear of a change after an
API server was killed again and again: client-go opens a watch anew after up to a minute then."""

BEFORE_USERS = ("deploying", "shadow")
DISTURBANCES = MappingProxyType(
    {
        "controller killed": Disturbance(kill_controller),
        "KServe killed": Disturbance(kill(*_KSERVE)),
        "Envoy Gateway killed": Disturbance(kill("envoy-gateway")),
        "Envoy killed": Disturbance(kill_envoy, unharmed=()),
        "API server killed": Disturbance(kill("kube-apiserver")),
        "kubelet killed": Disturbance(kill("kubelet"), unharmed=()),
        "candidate's pod deleted": Disturbance(delete_pod, unharmed=BEFORE_USERS),
        "controller cut off": Disturbance(cut_off),
    }
)


def edited(stage: Stage, weights: dict[str, int]) -> None:
    """Set the weights of the route by hand."""
    cluster, traffic = stage.target.cluster, stage.target.traffic
    while True:
        obj = cluster.get(traffic.carrier, NAME)
        assert obj is not None
        with suppress(Conflict):
            cluster.replace(traffic.weighted(obj, weights))
            return


def changed(stage: Stage, service: str) -> None:
    """Give a version's object another environment by hand: its Deployment makes other pods."""
    patch = {"spec": {"predictor": {"model": {"env": [{"name": "BY_HAND", "value": "1"}]}}}}
    subprocess.run(
        ["kubectl", "-n", stage.namespace, "patch", "inferenceservice", service,
         "--type=merge", f"--patch={json.dumps(patch)}"],
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip


def calm() -> None:
    """Wait until every component answers again."""
    until("every component runs", lambda: all(Path(f"/proc/{pid}").exists() for pid in _pids()))
    for url in _HEALTH:
        until(url, lambda url=url: _answers(url))  # type: ignore[misc]
    ready = ("kubectl", "wait", "--timeout=1s", "-nkserve", "--for=condition=Programmed",
             "gateway/kserve-ingress-gateway")  # fmt: skip
    until("the gateway is programmed", lambda: _succeeds(*ready), seconds=120)


def reachable(stage: Stage) -> None:
    """Wait until users reach the model through the gateway."""
    door = stage.target.door(NAME)
    answers = partial(_answers, f"{door.url}/v1/models", door.headers)
    until("the gateway answers", answers, seconds=400)


def _pids() -> list[int]:
    return list(json.loads(chosen().state.read_text())["components"].values())


def _processes(command: str) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/comm"):
        with suppress(OSError):  # it ended meanwhile
            if path.read_text().strip() == command:
                found.append(int(path.parent.name))
    return found


def _succeeds(*command: str) -> bool:
    return subprocess.run(command, check=False, capture_output=True, timeout=30).returncode == 0


def _answers(url: str, headers: Mapping[str, str] = MappingProxyType({})) -> bool:
    with suppress(httpx.HTTPError):
        return httpx.get(url, headers=headers, timeout=2).is_success
    return False
