"""Keeps the processes as the objects say: level-triggered, one pass every fraction of a second.

Killed and started again, it adopts the replicas that run: their record is on disk.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from penstock.core.errors import Conflict, LifecycleError
from serving.cluster import Object
from serving.local.objects import SqliteCluster
from serving.local.processes import Process, Replicas, born, hold
from serving.local.reconcile import (
    Crashes,
    Drain,
    Forget,
    Kill,
    Replica,
    Start,
    Wanted,
    plan,
)

_PERIOD_S = 0.2
_HEALTH_PERIOD_S = 2.0
_HEALTH_MISSES = 5
_STOP_S = 40.0
_STEADY_S = 60.0
"""A service that was ready this long starts its back-off anew."""
_ZYGOTE = (sys.executable, "-m", "serving.local.zygote")
_log = logging.getLogger("penstock.supervisor")

ENGINE = "serving.engine.server"
PRELOAD = (
    "torch",
    "serving.engine.loading",
    "transformers.models.llama.modeling_llama",
    "transformers.generation.continuous_batching",
)
"""What every replica imports anyway: the warm parent has it ready."""

THREADS = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0"}
"""Without these, replicas on a busy machine spend their time waiting for each other."""


@dataclass(frozen=True, slots=True)
class Launch:
    """How replicas are started."""

    verify: Callable[[Object], None]
    """Raises if an InferenceService's checkpoint is not what was recorded."""

    env: Mapping[str, str]
    engine: str = ENGINE
    preload: tuple[str, ...] = PRELOAD


class Zygote:
    """The warm parent, started when first needed and again when it died."""

    def __init__(self, launch: Launch, log: Path) -> None:
        self._launch = launch
        self._log = log
        self._process: subprocess.Popen[str] | None = None

    def warm(self) -> None:
        """Start it; does not wait until it is warm."""
        if self._process is not None and self._process.poll() is None:
            return
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*_ZYGOTE, self._launch.engine, *self._launch.preload],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={**self._launch.env, **THREADS},
                start_new_session=True,
            )
        self._answer()

    def fork(self, request: Mapping[str, str]) -> int:
        """Return the pid of a new replica."""
        self.warm()
        assert self._process is not None and self._process.stdin is not None  # noqa: S101, PT018
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return int(self._answer()["pid"])

    def close(self) -> None:
        """End it; the replicas go on."""
        if self._process is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.communicate()

    def _answer(self) -> dict[str, int]:
        assert self._process is not None and self._process.stdout is not None  # noqa: S101, PT018
        line = self._process.stdout.readline()
        if not line:
            raise OSError(f"the warm parent ended; log: {self._log}")
        answer: dict[str, int] = json.loads(line)
        return answer


@dataclass
class Supervisor:
    """One pass after another."""

    folder: Path
    launch: Launch
    cluster: SqliteCluster = field(init=False)
    replicas: Replicas = field(init=False)

    def __post_init__(self) -> None:
        self.cluster = SqliteCluster(self.folder / "cluster.db")
        self.replicas = Replicas(self.folder / "replicas.db")
        for name in ("logs", "replicas"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        self._zygote = Zygote(self.launch, self.folder / "logs" / "zygote.log")
        self._http = httpx.Client(timeout=2.0, trust_env=False)
        self._looked_at: dict[str, float] = {}
        self._misses: dict[str, int] = {}
        self._refused: dict[str, tuple[str, str]] = {}
        self._reader = ThreadPoolExecutor(1, "verify")  # gigabytes, while everything else goes on
        self._verifying: dict[tuple[str, int], Future[None]] = {}

    def run(self, stop: threading.Event) -> None:
        """Reconcile until told to stop; then end every replica."""
        self._zygote.warm()
        while not stop.is_set():
            try:
                self.reconcile(time.time())
            except (OSError, Conflict):
                _log.exception("this pass failed; the next one tries again")
            stop.wait(_PERIOD_S)
        self._reader.shutdown(wait=False, cancel_futures=True)
        self._end_all()
        self._zygote.close()

    def reconcile(self, now: float) -> None:
        """Make one pass."""
        services = {obj["metadata"]["name"]: obj for obj in self.cluster.list("InferenceService")}
        processes = self.replicas.all()
        wanted = [
            Wanted(name, int(obj["spec"]["predictor"].get("minReplicas", 1)))
            for name, obj in services.items()
        ]
        for gone in self.replicas.crashes().keys() - services.keys():
            self.replicas.record_crashes(gone, None)
            self._refused.pop(gone, None)
        self._verifying = {k: f for k, f in self._verifying.items() if k[0] in services}
        found = [Replica(p.identity, p.service, p.alive, p.draining_since) for p in processes]
        for action in plan(wanted, found, self.replicas.crashes(), now):
            self._act(action, {p.identity: p for p in processes}, services, now)
        for name, obj in services.items():
            self._tell(obj, [p for p in self.replicas.all() if p.service == name], now)

    def _act(
        self,
        action: Start | Drain | Kill | Forget,
        processes: Mapping[str, Process],
        services: Mapping[str, Object],
        now: float,
    ) -> None:
        match action:
            case Start(service):
                self._start(services[service], now)
            case Drain(identity):
                self.replicas.drain(processes[identity], now)
            case Kill(identity):
                processes[identity].signal(signal.SIGKILL)
            case Forget(identity, crashed):
                if crashed:
                    self._crashed(processes[identity].service, now)
                self.replicas.forget(identity)
                self._address(identity).unlink(missing_ok=True)

    def _start(self, obj: Object, now: float) -> None:
        name = obj["metadata"]["name"]
        model = obj["spec"]["predictor"]["model"]
        try:
            if not self._verified(obj):
                return  # a later pass looks again
        except LifecycleError as problem:
            self._refused[name] = (type(problem).__name__, str(problem))
            self._crashed(name, now)
            return
        self._refused.pop(name, None)
        identity = f"{name}-{uuid.uuid4().hex[:6]}"
        given = dict(argument.split("=", 1) for argument in model["args"] if "=" in argument)
        pid = self._zygote.fork(
            {
                "folder": model["storageUri"].removeprefix("file://"),
                "model_name": given["--model_name"],
                "fault": given.get("--fault", ""),
                "log": str(self._log_path(name)),
                "address": str(self._address(identity)),
            }
        )
        self.replicas.put(Process(identity, name, pid, born(pid) or 0, now))

    def _verified(self, obj: Object) -> bool:
        """True when the checkpoint was verified for one start; raises what verifying raised."""
        key = (obj["metadata"]["name"], int(obj["metadata"].get("generation", 0)))
        if key not in self._verifying:
            self._verifying[key] = self._reader.submit(self.launch.verify, obj)
        if not self._verifying[key].done():
            return False
        self._verifying.pop(key).result()
        return True

    def _crashed(self, service: str, now: float) -> None:
        before = self.replicas.crashes().get(service, Crashes())
        self.replicas.record_crashes(service, Crashes(before.count + 1, now))

    def _tell(self, obj: Object, processes: list[Process], now: float) -> None:
        """Write the status, if it changed."""
        name = obj["metadata"]["name"]
        ready = [
            url
            for p in processes
            if p.draining_since is None and p.alive and (url := self._healthy(p, now))
        ]
        wanted = int(obj["spec"]["predictor"].get("minReplicas", 1))
        crashes = self.replicas.crashes().get(name, Crashes())
        reason, message = self._why(name, crashes)
        up = len(ready) >= wanted
        if up and crashes.count and now - crashes.last_at > _STEADY_S:
            self.replicas.record_crashes(name, None)
        condition = {
            "type": "Ready",
            "status": "True" if up else "False",
            "reason": "" if up else reason,
            "message": "" if up else message,
        }
        status = {
            "conditions": [condition],
            "readyReplicas": len(ready),
            "endpoints": sorted(ready),
            "restarts": crashes.count,
            "observedGeneration": obj["metadata"].get("generation"),
        }
        if obj.get("status") != status:
            with contextlib.suppress(Conflict):  # the next pass reads it again
                self.cluster.replace_status({**obj, "status": status})

    def _why(self, name: str, crashes: Crashes) -> tuple[str, str]:
        if name in self._refused:
            return self._refused[name]
        if crashes.count == 0:
            return "Starting", "the engine is loading the checkpoint"
        return "CrashLoop", f"the engine ended {crashes.count} times: {self._last_words(name)}"

    def _last_words(self, name: str) -> str:
        path = self._log_path(name)
        lines = path.read_text(errors="replace").splitlines() if path.exists() else []
        told = [line for line in lines if line.strip()]
        return told[-1][:500] if told else f"nothing in {path}"

    def _healthy(self, process: Process, now: float) -> str:
        """Return the replica's URL if it answers; looked at every few seconds."""
        path = self._address(process.identity)
        if not path.exists():
            return ""
        url = path.read_text()
        if now - self._looked_at.get(process.identity, 0.0) < _HEALTH_PERIOD_S:
            return url if self._misses.get(process.identity, 0) == 0 else ""
        self._looked_at[process.identity] = now
        try:
            fine = self._http.get(f"{url}/health").status_code == 200
        except httpx.HTTPError:
            fine = False
        self._misses[process.identity] = 0 if fine else self._misses.get(process.identity, 0) + 1
        if self._misses[process.identity] >= _HEALTH_MISSES:
            process.signal(signal.SIGKILL)
        return url if fine else ""

    def _address(self, identity: str) -> Path:
        return self.folder / "replicas" / f"{identity}.url"

    def _log_path(self, name: str) -> Path:
        return self.folder / "logs" / f"{name}.log"

    def _end_all(self) -> None:
        """Drain every replica, then end what is left."""
        end_replicas(self.replicas, _STOP_S)


def end_replicas(replicas: Replicas, timeout_s: float) -> None:
    """Drain every recorded replica; after `timeout_s` the rest is killed."""
    never, deadline = threading.Event(), time.monotonic() + timeout_s
    for process in replicas.all():
        if process.draining_since is None:
            replicas.drain(process, time.time())
    while any(p.alive for p in replicas.all()):
        if time.monotonic() > deadline:
            for process in replicas.all():
                process.signal(signal.SIGKILL)
        never.wait(_PERIOD_S / 4)
    for process in replicas.all():
        replicas.forget(process.identity)


def run(folder: Path, launch: Launch) -> int:
    """Supervise until SIGTERM; returns at once if another process does it already."""
    lock = hold(folder / "supervisor.lock")
    if lock is None:
        return 0
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    logging.basicConfig(level=logging.INFO)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    _log.info("supervising %s as process %s", folder, os.getpid())
    with lock:
        Supervisor(folder, launch).run(stop)
    return 0
