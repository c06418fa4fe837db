"""Helm and Kustomize as people run them: what they render, what they install, what they leave."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from serving.cluster import Object
from tests.cluster.build import BINARIES, built, go
from tests.cluster.places import REPOSITORY
from tests.cluster.waiting import until
from tests.unit.serving.kserve.definitions import definition

DEPLOY = REPOSITORY / "deploy"
CHART = DEPLOY / "chart"
PART_OF = "app.kubernetes.io/part-of=penstock"
_TEAM = DEPLOY / "overlays/team"
_KINDS = ("clusterrole", "clusterrolebinding", "validatingadmissionpolicy", "crd")
_NO_LIST = {"componentstatuses", "bindings"}


def tool(name: str) -> str:
    """Return where a binary lies; skips where none was ever built."""
    (binary,) = (each for each in BINARIES if each.name == name)
    path = built(binary, go("env", "GOVERSION", module="fake-gpu"))
    if not path.exists():
        pytest.skip(f"{name} is not built: python -m tests.cluster build")
    return str(path)


def helm(*words: str) -> str:
    """Run helm; return what it prints.

    Raises:
        subprocess.CalledProcessError: It failed; what it said is shown.
    """
    with tempfile.TemporaryDirectory() as home:
        places = {f"HELM_{name}_HOME": home for name in ("CACHE", "CONFIG", "DATA")}
        done = subprocess.run(
            [tool("helm"), *words], capture_output=True, text=True, timeout=400, check=False,
            env={**os.environ, **places},
        )  # fmt: skip
    if done.returncode:
        print(f"$ helm {' '.join(words)}\n{done.stdout}{done.stderr}")
        raise subprocess.CalledProcessError(done.returncode, words, done.stdout, done.stderr)
    return done.stdout


def templated(namespace: str, *words: str) -> list[Object]:
    """Return what `helm template` makes of the chart."""
    text = helm("template", "penstock", str(CHART), "-n", namespace, *words)
    return [each for each in yaml.safe_load_all(text) if each]


def kustomized(folder: Path) -> list[Object]:
    """Return what `kubectl kustomize` makes of a folder."""
    command = [tool("kubectl"), "kustomize", str(folder)]
    text = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return list(yaml.safe_load_all(text))


def overlay(folder: Path, namespace: str, parts: list[str], **more: Any) -> Path:
    """Write a kustomization over parts of deploy/, as docs/how-to/install-on-a-cluster.md says."""
    folder.mkdir()
    root = os.path.relpath(DEPLOY, folder.resolve())
    body = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namespace": namespace,
        "resources": [f"{root}/{part}" for part in parts],
        "transformers": [f"{root}/common"],
        **more,
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(body))
    return folder


def team(folder: Path, name: str, registry: str) -> Path:
    """Copy the team's overlay and its values, as a team of another name; return the folder."""
    folder.mkdir()
    root = os.path.relpath(DEPLOY, folder.resolve())
    for file in _TEAM.iterdir():
        text = file.read_text().replace("team-a", name).replace("../../", f"{root}/")
        (folder / file.name).write_text(text)
    images = [
        {"name": image, "newName": f"{registry}/{image}"}
        for image in ("penstock-controller-python", "penstock-engine-python")
    ]
    path = folder / "kustomization.yaml"
    path.write_text(f"{path.read_text()}\n{yaml.safe_dump({'images': images})}")
    return folder


def kubectl(*words: str, given: Object | None = None, env: Mapping[str, str] | None = None) -> str:
    """Run kubectl; return what it prints."""
    done = try_kubectl(*words, given=given, env=env)
    assert done.returncode == 0, f"kubectl {' '.join(words)}: {done.stderr}"
    return done.stdout


def try_kubectl(
    *words: str, given: Object | None = None, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run kubectl, whatever comes of it."""
    return subprocess.run(
        ["kubectl", *words], input=json.dumps(given) if given else None, text=True,
        capture_output=True, check=False, timeout=120, env={**os.environ, **(env or {})},
    )  # fmt: skip


@contextmanager
def definitions(*kinds: str) -> Iterator[None]:
    """Have the cluster know kinds of operators that do not run on it, until the block ends."""
    made = []
    for kind in kinds:
        body = definition(kind)
        body["metadata"].pop("creationTimestamp", None)
        name = f"crd/{body['metadata']['name']}"
        if try_kubectl("get", name).returncode:
            kubectl("apply", "--server-side", "-f", "-", given=body)
            made.append(name)
        kubectl("wait", "--for=condition=Established", name, "--timeout=30s")
    try:
        yield
    finally:
        if made:
            kubectl("delete", "--wait=false", *made)


def installed() -> set[str]:
    """Return every object of ours that there is, in every namespace."""
    found = kubectl("api-resources", "--verbs=list", "-o", "name").split()
    kinds = ",".join(each for each in found if each.partition(".")[0] not in _NO_LIST)
    shown = kubectl("get", kinds, "-A", "-l", PART_OF, "-o", "json", "--ignore-not-found")
    return {_called(each) for each in json.loads(shown or '{"items": []}')["items"]}


def cluster_wide() -> set[str]:
    """Return the names of what belongs to the whole cluster and can be left over."""
    return set(kubectl("get", ",".join(_KINDS), "-o", "name").split())


def gone(name: str, *, seconds: float = 60) -> None:
    """Wait until nothing of ours is left in a namespace, nor cluster-wide with its name."""
    until("what was installed to go", lambda: not [x for x in installed() if name in x], seconds)


def _called(obj: Object) -> str:
    place = obj["metadata"].get("namespace", "")
    return f"{place}/{obj['kind']}/{obj['metadata']['name']}".lstrip("/")
