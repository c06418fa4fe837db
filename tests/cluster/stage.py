"""A model in a namespace of its own: real pods, the real gateway, and users who ask without end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from penstock.cli.users import Users
from penstock.core.identity import ModelRef
from penstock.core.manifest import Manifest
from penstock.core.settings import Settings
from penstock.core.spec import Deadlines, KServe, Margins, ModelSpec, Rollout
from registry.publish import publish
from registry.store import manifest_of
from serving import controller as acting
from serving import deploy as serving_versions
from serving.completer import Message
from serving.kserve.runtimes import cpu_runtime
from serving.kube.errors import Unreachable
from serving.manifests import Release, service_name
from serving.rollout.record import Record, first_record
from serving.sources.replay import Prompt
from serving.targets.kserve import ClusterTarget, connect
from tests.cluster import foreign
from tests.cluster.waiting import until
from tests.fakes.tiny_model import make_tiny_model

NAME = "m"
CLAIM = "store"
POLICY = Rollout(
    steps=[25, 50],
    proof=[4.0],
    metrics={
        "error_rate": Margins(kind="errors", tolerate=0.02, reject=0.2),
    },
    soak_s=5.0,
    replay_rps=30.0,
    stale_after_s=90.0,
    deadlines=Deadlines(warmup_s=60.0, shadow_s=120.0, step_s=180.0, held_s=120.0),
    ready_timeout_s=180.0,
)
"""A wide margin, so that a rollout is decided in seconds at 20 requests per second. Errors only: on
two cores that everything shares, 400 prompts prove nothing about latency."""

PATIENT = POLICY.model_copy(
    update={
        "ready_timeout_s": 240.0,
        "deadlines": Deadlines(warmup_s=120.0, shadow_s=240.0, step_s=300.0, held_s=120.0),
    }
)
"""For what is not about time, so that it passes on a machine that does much else."""

RPS = 20.0
_QUESTIONS: list[list[Message]] = [
    [Message(role="user", content=f"what is {number}?")] for number in range(400)
]


@dataclass
class Stage:
    """One namespace.

    Args:
        namespace: Its name.
        folder: For checkpoints and homes.
        mode: How traffic is split.
    """

    namespace: str
    folder: Path
    mode: str = "route"
    policy: Rollout = POLICY
    more: dict[str, Any] = field(default_factory=dict)
    """Of `target.kserve`."""

    cpu: str = os.environ.get("PENSTOCK_TEST_CPU", "400m")
    """Of a pod; its engine needs 5 to 15 seconds of one processor to start. Two have room for
    four pods of 400m, or for three of 600m."""

    def __post_init__(self) -> None:
        self.settings = Settings(home=self.folder / "home")
        self.store = self.folder / "store"
        self.store.mkdir()
        self.target = self.connect()
        for folder in (self.folder, self.store):
            folder.chmod(0o755)  # pods are another user
        self._manifests: dict[int, tuple[Path, Manifest]] = {}

    def connect(self) -> ClusterTarget:
        """Return the cluster as whoever starts anew sees it."""
        return connect(KServe.model_validate(self.kserve), self.settings)

    @property
    def options(self) -> list[str]:
        """What commands are told of the place."""
        where = self.kserve
        known = {each: where[each] for each in ("prometheus", "address") if each in where}
        told = [word for each, value in known.items() for word in (f"--{each}", value)]
        return ["--namespace", self.namespace, "--mode", self.mode, *told]

    @property
    def kserve(self) -> dict[str, Any]:
        """What `model.yaml` says of the cluster."""
        return {
            "namespace": self.namespace,
            "mode": self.mode,
            "storage": f"pvc://{CLAIM}/checkpoints={self.store}",
            "drain_s": 10,  # answers here take less than a second
            **foreign.target(),
            **self.more,
        }

    def spec(self, **more: Any) -> ModelSpec:
        """Return the model's spec."""
        body = {
            "name": NAME,
            "source": "hf://a/b",
            "hardware": {"cpu": self.cpu, "memory": "1Gi"},
            "rollout": json.loads(self.policy.model_dump_json()),
            "target": {"kserve": self.kserve},
            **more,
        }
        return ModelSpec.model_validate(body)

    def prepare(self, *, runtime: bool = True) -> None:
        """Make what a namespace needs before anything is served; the runtime may come otherwise."""
        cluster = self.target.cluster
        made = {"apiVersion": "v1", "kind": "List", "items": volume(self.namespace, self.store)}
        subprocess.run(
            ["kubectl", "-n", self.namespace, "apply", "-f", "-"],
            input=json.dumps(made),
            text=True,
            check=True,
            capture_output=True,
        )
        if runtime:
            cluster.create(cpu_runtime(self.target.facts))

    def release(self, version: int, seed: int = 1) -> Release:
        """Publish a checkpoint; versions of one seed have the same weights."""
        if seed not in self._manifests:
            folder = make_tiny_model(self.folder / f"model-{seed}", seed=seed)
            made = manifest_of(folder, ModelRef.parse(folder.as_uri()))
            self._manifests[seed] = (folder, made)
        folder, manifest = self._manifests[seed]
        uri = publish(folder, manifest, self.kserve["storage"])
        return Release(version, uri, manifest.root, manifest)

    @property
    def site(self) -> serving_versions.Site:
        """Where versions of the model are served."""
        target = self.target
        return serving_versions.Site(
            target.cluster, lambda: target.observed(NAME), target.traffic, target.why
        )

    def deploy(self, version: int = 1, *arguments: str) -> serving_versions.Deployed:
        """Serve a version to everybody."""
        spec = self.spec(runtime_args=list(arguments))
        return serving_versions.deploy(self.site, spec, self.release(version))

    def begin(
        self, version: int = 2, *arguments: str, seed: int = 1, release: Release | None = None
    ) -> Record:
        """Make a version a candidate; of a release that was published, or of a seed's."""
        target, service = self.target, service_name(NAME, version)
        prompts = [Prompt(tuple(question)) for question in _QUESTIONS]
        target.keep_prompts(service, prompts, 8)
        stable = acting.stable_of(target.cluster, NAME, target.traffic)
        first = first_record(service, stable, self.policy, time.time())
        record = acting.begin(
            target.cluster, target.log, NAME, first, self.policy, traffic=target.traffic
        )
        spec = self.spec(runtime_args=list(arguments))
        release = release or self.release(version, seed)
        serving_versions.propose(target.cluster, spec, release, target.traffic)
        return record

    @property
    def record(self) -> Record:
        """The rollout's record, as the cluster has it."""
        obj = self.target.cluster.get(self.target.traffic.carrier, NAME)
        assert obj is not None
        found = acting.record_of(obj)
        assert found is not None
        return found

    def until(self, done: Callable[[Record], bool], *, seconds: float = 600.0) -> Record:
        """Wait for the record; whoever looks after the rollout drives it."""
        never, deadline = threading.Event(), time.monotonic() + seconds
        while time.monotonic() < deadline:
            with suppress(Unreachable):  # a disturbed API server comes back
                record = self.record
                if done(record):
                    return record
            never.wait(0.2)
        record = self.record
        raise AssertionError(
            f"after {seconds:g} s: {record.phase} {record.weight} %, held {record.held!r}: "
            f"{record.reason} (epoch {record.epoch}, {record.owner}); {record.evidence.pairs} "
            f"pairs, {record.evidence.requests} requests"
        )

    def gone(self, service: str, *, seconds: float = 60.0) -> bool:
        """Return whether a version's object is removed in time."""
        never, deadline = threading.Event(), time.monotonic() + seconds
        while time.monotonic() < deadline:
            with suppress(Unreachable):
                if self.target.cluster.get(self.target.traffic.served, service) is None:
                    return True
            never.wait(0.2)
        return False

    @contextmanager
    def users(self, rps: float = RPS) -> Iterator[Users]:
        """Ask without end, through the gateway, from when it routes: it accepts a route first."""
        door = self.target.door(NAME)
        models = f"{door.url}/v1/models"

        def routes() -> bool:
            with suppress(httpx.HTTPError):
                answer = httpx.get(models, headers=door.headers, trust_env=False, timeout=10)
                return answer.status_code != httpx.codes.NOT_FOUND
            return False

        until("the gateway to route", routes)
        asked = Users(door.url, NAME, _QUESTIONS, rps=rps, seed=7, headers=door.headers)
        with asked.asking():
            yield asked

    def controller(
        self, *words: str, group: int | None = None, **env: str
    ) -> subprocess.Popen[str]:
        """Start `penstock controller` as its Deployment would; the caller ends it."""
        with (self.folder / f"controller-{time.time_ns()}.log").open("w") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "penstock.cli", "controller", *self.options, *words],
                stdout=log,
                stderr=subprocess.STDOUT,
                text=True,
                group=group,
                env={**os.environ, "PENSTOCK_HOME": str(self.settings.home), **env},
            )

    def logs(self) -> str:
        """Return what the controllers said, for a failure's message."""
        return "\n".join(path.read_text() for path in sorted(self.folder.glob("controller-*.log")))

    @contextmanager
    def driven(self) -> Iterator[subprocess.Popen[str]]:
        """Have a controller look after rollouts until the block ends."""
        process = self.controller()
        try:
            yield process
        finally:
            process.terminate()
            process.wait(60)


def volume(namespace: str, folder: Path, claim: str = CLAIM) -> list[Any]:
    """Return a volume over a folder of this machine, which is the node, and its claim."""
    name, size = f"{namespace}-{claim}", {"storage": "1Gi"}
    shared = {"accessModes": ["ReadWriteMany"], "storageClassName": name}
    return [
        {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": name},
            "spec": {**shared, "capacity": size, "hostPath": {"path": str(folder)}},
        },
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": claim},
            "spec": {**shared, "resources": {"requests": size}, "volumeName": name},
        },
    ]
