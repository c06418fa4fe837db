"""Starts, stops and describes the processes of the local cluster."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx

from penstock.core.errors import NotReady, PortOccupied
from penstock.core.settings import Settings
from serving.local.objects import SqliteCluster
from serving.local.processes import Replicas, holder
from serving.local.supervisor import end_replicas
from serving.manifests import NAME, VERSION, ready, weights_of

_POLL_S = 0.05
_STOP_S = 45.0


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    """One version that is served, or is about to be."""

    service: str
    name: str
    version: str
    weight: int
    """Share of the name's traffic."""

    ready: bool
    reason: str
    replicas: int
    """Ready ones."""

    pids: tuple[int, ...]
    """Processes, ready or not."""

    restarts: int
    log: str


@dataclass(frozen=True, slots=True)
class LocalStatus:
    """The local cluster as it is now."""

    supervisor_pid: int | None
    gateway_pid: int | None
    gateway_url: str
    services: tuple[ServiceStatus, ...]

    @property
    def up(self) -> bool:
        """Whether both processes run."""
        return self.supervisor_pid is not None and self.gateway_pid is not None


def cluster(settings: Settings) -> SqliteCluster:
    """Return the objects of the local cluster."""
    return SqliteCluster(settings.cluster / "cluster.db")


def url(settings: Settings) -> str:
    """Return where the gateway answers."""
    return f"http://127.0.0.1:{settings.gateway_port}"


def observed(settings: Settings, name: str) -> dict[str, int]:
    """Return the weights the gateway has in force for a name; empty while it does not answer."""
    try:
        found = httpx.get(f"{url(settings)}/routes", timeout=2, trust_env=False).json()
    except (httpx.HTTPError, ValueError):
        return {}
    weights: dict[str, int] = found.get(name, {})
    return weights


def up(settings: Settings, env: Mapping[str, str], supervisor: Sequence[str]) -> list[str]:
    """Start what does not run; return the names of what was started.

    Args:
        settings: Where the cluster lives, and the gateway's port.
        env: The environment of the processes.
        supervisor: Command line of the supervisor; it verifies checkpoints, so the caller
            builds it.
    """
    folder = settings.cluster
    started = []
    if holder(folder / "gateway.lock") is None:
        _refuse_occupied(settings.gateway_port)
        gateway = [sys.executable, "-m", "serving.local.gateway", str(folder)]
        _detach([*gateway, str(settings.gateway_port)], env, folder / "logs" / "gateway.log")
        started.append("gateway")
    if holder(folder / "supervisor.lock") is None:
        _detach(supervisor, env, folder / "logs" / "supervisor.log")
        started.append("supervisor")
    if started:
        _until(lambda: _answers(settings), "local cluster", folder / "logs")
    return started


def down(settings: Settings) -> list[str]:
    """Drain and stop everything; return the names of what was stopped."""
    folder = settings.cluster
    stopped = []
    for name in ("supervisor", "gateway"):
        pid = holder(folder / f"{name}.lock")
        if pid is not None:
            os.kill(pid, signal.SIGTERM)
            _until(lambda n=name: holder(folder / f"{n}.lock") is None, name, folder / "logs")  # type: ignore[misc]
            stopped.append(name)
    if (folder / "replicas.db").exists():
        # what a killed supervisor left behind
        end_replicas(Replicas(folder / "replicas.db"), _STOP_S)
    return stopped


def status(settings: Settings) -> LocalStatus:
    """Return the cluster as it is now; changes nothing."""
    folder = settings.cluster
    services: list[ServiceStatus] = []
    if (folder / "cluster.db").exists():
        objects = cluster(settings)
        weights: dict[str, int] = {}
        pids: dict[str, list[int]] = {}
        for process in Replicas(folder / "replicas.db").all():
            if process.alive:
                pids.setdefault(process.service, []).append(process.pid)
        for each in objects.list("HTTPRoute"):
            weights |= weights_of(each)
        for obj in objects.list("InferenceService"):
            name, labels = obj["metadata"]["name"], obj["metadata"]["labels"]
            is_ready, reason = ready(obj)
            services.append(
                ServiceStatus(
                    service=name,
                    name=labels[NAME],
                    version=labels[VERSION],
                    weight=weights.get(name, 0),
                    ready=is_ready,
                    reason=reason,
                    replicas=int(obj.get("status", {}).get("readyReplicas", 0)),
                    pids=tuple(pids.get(name, ())),
                    restarts=int(obj.get("status", {}).get("restarts", 0)),
                    log=str(folder / "logs" / f"{name}.log"),
                )
            )
    return LocalStatus(
        holder(folder / "supervisor.lock"),
        holder(folder / "gateway.lock"),
        url(settings),
        tuple(services),
    )


def _refuse_occupied(port: int) -> None:
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError as problem:
        raise PortOccupied("127.0.0.1", port, option="PENSTOCK_GATEWAY_PORT") from problem


def _detach(command: Sequence[str], env: Mapping[str, str], log: Path) -> None:
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as file:
        # a session of its own: Ctrl-C in the terminal is not meant for the cluster; and a parent
        # of its own, so that nobody has to wait for it
        subprocess.run(
            ["setsid", "--fork", *command],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=dict(env),
            check=True,
        )


def _answers(settings: Settings) -> bool:
    if holder(settings.cluster / "supervisor.lock") is None:
        return False
    try:
        return httpx.get(f"{url(settings)}/healthz", timeout=2, trust_env=False).is_success
    except httpx.HTTPError:
        return False


def _until(done: Callable[[], bool], what: str, logs: Path) -> None:
    never, start = threading.Event(), time.monotonic()
    while not done():
        if time.monotonic() - start > _STOP_S:
            raise NotReady(
                what, reason="it does not answer", waited_s=_STOP_S, hint=f"read the logs in {logs}"
            )
        never.wait(_POLL_S)
