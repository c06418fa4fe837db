"""A version that is served, users who ask for it all the time, and a controller: what goes wrong
with a candidate happens beside them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml

from penstock.cli.users import Users
from penstock.core.identity import ModelRef
from registry.publish import publish
from registry.store import manifest_of
from serving.kube import connect
from serving.manifests import Release, service_name
from serving.rollout.record import Record
from tests.cluster.places import REPOSITORY
from tests.cluster.stage import NAME, POLICY, Stage
from tests.cluster.waiting import until

RPS = 10.0
_READER = "deploy/controller/gateway-reader.yaml"
_START_S = 240.0
"""Of version 1: the machine may have other work."""

_LITTLE = "100m"
"""Of candidates: most never start, and the node has other work."""

PATIENCE_S = 20.0
"""How long a candidate may take: enough for every mistake to be seen, not for an engine's start."""


@dataclass
class Served:
    """Version 1, and those who use it."""

    stage: Stage
    users: Users
    version: int = 1
    known: int = 0
    """Failures that an earlier check has told of."""

    @contextmanager
    def otherwise(self, **changed: Any) -> Iterator[Stage]:
        """Have another `model.yaml` for a while."""
        stage, before = self.stage, vars(self.stage).copy()
        try:
            for name, value in changed.items():
                setattr(stage, name, value)
            stage.target = stage.connect()
            yield stage
        finally:
            vars(stage).update(before)

    def rolled_back(self, release: Release | None = None, *, patience_s: float = PATIENCE_S) -> str:
        """Make another version a candidate; return why it was rolled back, once all is as before.

        Prints how long it took: until somebody who looks is told, and until it was over.
        """
        stage, service = self.stage, service_name(NAME, self.next())
        policy = POLICY.model_copy(update={"ready_timeout_s": patience_s})
        with self.otherwise(policy=policy):
            begun = time.monotonic()
            stage.begin(self.version, release=release)
        told = list[float]()

        def over(record: Record) -> bool:
            if not told and stage.target.why(service):
                told.append(time.monotonic() - begun)
            return record.over and record.candidate == service

        record = stage.until(over, seconds=patience_s + 60)
        took_s = time.monotonic() - begun
        assert record.phase == "rolled_back", (record.phase, record.reason, stage.logs())
        self.untouched()
        first_s = min([*told, took_s])
        print(f"told after {first_s:.1f} s, over after {took_s:.1f} s: {record.reason}")
        return record.reason

    def next(self) -> int:
        """Return the number of a version that nobody has tried."""
        self.version += 1
        return self.version

    def untouched(self) -> None:
        """Check that version 1 has all traffic, nothing else is there, and nobody noticed."""
        target = self.stage.target

        def alone() -> bool:
            found = target.cluster.list(target.traffic.served)
            return [each["metadata"]["name"] for each in found] == [f"{NAME}-v1"]

        until("the version that was not to be to go", alone)
        until("the route", lambda: target.observed(NAME) == {f"{NAME}-v1": 100})
        asked = self.users.asked
        until("more users", lambda: self.users.asked > asked + RPS)
        failed, self.known = self.users.failures[self.known :], len(self.users.failures)
        assert not failed, f"{len(failed)} of {self.users.asked}: {failed[:5]}"


@contextmanager
def served(folder: Path, mode: str = "route") -> Iterator[Served]:
    """Serve version 1 in a namespace of its own until the block ends."""
    name = f"test-{uuid.uuid4().hex[:8]}"
    with connect(namespace=name) as client:
        client.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        try:
            patient = POLICY.model_copy(update={"ready_timeout_s": _START_S})
            stage = Stage(name, folder, mode=mode, cpu="400m", policy=patient)
            stage.prepare()
            stage.deploy(1)
            until("an answer through the gateway", lambda: answers(stage), _START_S)
            stage.cpu = _LITTLE
            with stage.users(RPS) as users:
                yield Served(stage, users)
        finally:
            client.delete("Namespace", name)


def answers(stage: Stage) -> bool:
    """Return whether the model answers through the gateway."""
    door = stage.target.door(NAME)
    url = f"{door.url}/v1/models"
    try:
        return httpx.get(url, headers=door.headers, trust_env=False, timeout=10).is_success
    except httpx.HTTPError:
        return False


def published(stage: Stage, folder: Path, version: int) -> Release:
    """Bring a checkpoint to where the stage's pods find it, as it is."""
    manifest = manifest_of(folder, ModelRef.parse(folder.as_uri()))
    uri = publish(folder, manifest, stage.kserve["storage"])
    return Release(version, uri, manifest.root, manifest)


def lying_at(stage: Stage, release: Release) -> Path:
    """Return the folder in which a release's files lie."""
    return stage.store / "checkpoints" / release.root.hex


def penstock(*words: str, **env: str) -> tuple[int, str]:
    """Run a command as a person does; return its exit code and all that it says."""
    command = [sys.executable, "-m", "penstock.cli", *words]
    done = subprocess.run(
        command, cwd=REPOSITORY, env={**os.environ, **env},
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    said = done.stdout + done.stderr
    print(f"$ penstock {' '.join(words)}\n{said}")
    return done.returncode, said


@contextmanager
def account(stage: Stage, name: str, rules: list[Any]) -> Iterator[str]:
    """Give a new ServiceAccount a Role, and the right to read the Gateway.

    Yields:
        A kubeconfig that is its own.
    """
    namespace, group = stage.namespace, "rbac.authorization.k8s.io"
    subjects = [{"kind": "ServiceAccount", "name": name, "namespace": namespace}]
    role, binding = yaml.safe_load_all((REPOSITORY / _READER).read_text())
    reader = f"{namespace}-{name}"
    bodies = [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}},
        role_of(name, rules),
        {
            **binding,
            "kind": "RoleBinding",
            "metadata": {"name": name},
            "roleRef": {"apiGroup": group, "kind": "Role", "name": name},
            "subjects": subjects,
        },
        {**role, "metadata": {"name": reader}},
        {
            **binding,
            "metadata": {"name": reader},
            "roleRef": {**binding["roleRef"], "name": reader},
            "subjects": subjects,
        },
    ]
    kubectl(stage, "apply", "-f", "-", given=bodies)
    try:
        token = kubectl(stage, "create", "token", name, "--duration=1h").strip()
        found = json.loads(kubectl(stage, "config", "view", "--raw", "--flatten", "-o", "json"))
        found["users"] = [
            {"name": each["name"], "user": {"token": token}} for each in found["users"]
        ]
        path = stage.folder / f"{name}.kubeconfig"
        path.write_text(json.dumps(found))
        yield str(path)
    finally:
        kubectl(stage, "delete", "clusterrole,clusterrolebinding", reader)


def role_of(name: str, rules: list[Any]) -> dict[str, Any]:
    """Return a Role."""
    kind = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role"}
    return {**kind, "metadata": {"name": name}, "rules": rules}


def kubectl(stage: Stage, *words: str, given: list[Any] | None = None) -> str:
    """Run kubectl in the stage's namespace; objects are given as its input."""
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": given}) if given else None
    command = ["kubectl", "-n", stage.namespace, *words]
    return subprocess.run(command, input=text, text=True, check=True, stdout=subprocess.PIPE).stdout
