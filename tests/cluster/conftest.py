"""The running cluster and a namespace of one's own, for every test here."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from serving.kube import connect
from serving.kube.errors import NoAccess, Unreachable
from serving.kube.patience import Patience
from tests.cluster import foreign
from tests.cluster.places import chosen

_PARTS = ("gateway", "s3", "prometheus", "registry")
_ANYWHERE = ("test_kube_adapter.py", "test_manifests.py")
"""What needs a cluster and nothing of its nodes."""

_SHARING = ("test_rollout.py", "test_split.py", "test_roll_back_now.py", "test_stop.py")
"""What needs a folder that its nodes see, too. Others' pods want more of this machine."""

_FIRST = (
    *("test_rollout.py", "test_split.py", "test_kube_adapter.py"),
    *("test_refused.py", "test_lifecycle.py", "test_refused_before.py"),
)
"""What is least to be left out where PENSTOCK_TEST_UNTIL ends a run; and, of what runs two files at
a time, the longest, so that none of them is the last."""


@dataclass(frozen=True, slots=True)
class Running:
    """A cluster that runs, and how its parts are reached: those of a foreign one are not known."""

    kubeconfig: str
    gateway: str = ""
    s3: str = ""
    prometheus: str = ""
    registry: str = ""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order what matters most first; leave out what needs a node that a foreign cluster has not."""
    order = {name: number for number, name in enumerate(_FIRST)}
    items.sort(key=lambda item: order.get(item.path.name, len(order)))
    if not foreign.kubeconfig():
        return
    runs = (*_ANYWHERE, *(_SHARING if foreign.shared() else ()))
    lacks = pytest.mark.skip(reason="the cluster is foreign: docs/how-to/test-cluster.md")
    for item in items:
        ours = item.path.parent == Path(__file__).parent and item.get_closest_marker("cluster")
        if ours and item.path.name not in runs:
            item.add_marker(lacks)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Leave out what would begin after PENSTOCK_TEST_UNTIL (seconds since the epoch)."""
    until = float(os.environ.get("PENSTOCK_TEST_UNTIL", "inf"))
    if item.get_closest_marker("cluster") and time.time() > until:
        pytest.skip("the time that this run may take is over")


def _found() -> Running | str:
    """Return the cluster, or why there is none."""
    if foreign.kubeconfig():
        os.environ.update(foreign.environment())  # for kubectl, and for what tests start
        return Running(foreign.kubeconfig())
    place = chosen()
    if not place.state.exists():
        return f"no cluster {place.name} runs: python -m tests.cluster --name {place.name} up"
    told = json.loads(place.state.read_text())
    return Running(told["kubeconfig"], **{part: told[part] for part in _PARTS})


@pytest.fixture(scope="session")
def cluster() -> Running:
    """The cluster of PENSTOCK_TEST_KUBECONFIG or PENSTOCK_TEST_CLUSTER; skips when none is up."""
    found = _found()
    if isinstance(found, str):
        pytest.skip(found)
    try:
        patience = Patience(total_s=5.0)
        connect(kubeconfig=found.kubeconfig, namespace="default", patience=patience).list(
            "ConfigMap"
        )
    except (NoAccess, Unreachable) as problem:
        pytest.skip(f"the cluster does not answer; inside only, tests.cluster run --: {problem}")
    return found


@pytest.fixture
def tmp_path(tmp_path: Path) -> Iterator[Path]:
    """A folder that the cluster's nodes see, if any does."""
    if (shared := foreign.shared()) is None:
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=shared) as folder:
        yield Path(folder)


@pytest.fixture
def namespace(cluster: Running) -> Iterator[str]:
    """A fresh namespace; the cluster removes it in the background afterwards.

    Its pods end at once: drained for most of a minute, they would keep the next test's away.
    """
    name = f"test-{uuid.uuid4().hex[:8]}"
    client = connect(kubeconfig=cluster.kubeconfig, namespace=name)
    client.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    yield name
    client.delete("Namespace", name)  # first: nothing makes new pods in it any more
    subprocess.run(
        ["kubectl", "-n", name, "delete", "pods", "--all", "--force", "--wait=false"],
        check=False, capture_output=True, timeout=60,
        env={**os.environ, "KUBECONFIG": cluster.kubeconfig},
    )  # fmt: skip
