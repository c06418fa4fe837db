"""Knative mode on the real KServe controller. **Knative itself is faked**: nothing is served.

The real API server has Knative's definition of a Service; the real KServe makes that Service from
our InferenceService and sets its traffic. What Knative would do with it (revisions, readiness,
shares) is written into its status here.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from penstock.core.errors import Conflict, NotReady
from serving.cluster import Object
from serving.kserve import knative
from serving.kube.errors import Refused
from tests.cluster import chaos
from tests.cluster.build import module_folder
from tests.cluster.stage import NAME, Stage
from tests.cluster.waiting import until
from tests.fakes.knative import shares

pytestmark = [pytest.mark.cluster, pytest.mark.wider, pytest.mark.alone, pytest.mark.enable_socket]

_SERVICES = "services.serving.knative.dev"
_PREDICTOR = f"{NAME}-predictor"
"""KServe's name of the Knative Service."""

_AUTOSCALER: Object = {  # KServe reads Knative's lowest scales in it
    "apiVersion": "v1",
    "kind": "List",
    "items": [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "knative-serving"}},
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "config-autoscaler", "namespace": "knative-serving"},
            "data": {"allow-zero-initial-scale": "true"},
        },
    ],
}


@pytest.fixture(scope="module")
def definitions(cluster: Any) -> Iterator[None]:
    """Knative's definition of a Service is there, and KServe has seen it when it started."""
    folder = module_folder("knative.dev/serving", module="kserve") / "config/core/300-resources"
    _kubectl("apply", "--server-side", "-f", str(folder / "service.yaml"))
    _kubectl("wait", "--for=condition=Established", f"crd/{_SERVICES}", "--timeout=30s")
    _kubectl("apply", "-f", "-", text=json.dumps(_AUTOSCALER))
    _restarted()
    yield
    _kubectl("delete", "crd", _SERVICES)
    _kubectl("delete", "namespace", "knative-serving", "--wait=false")
    _restarted()


def _restarted() -> None:
    chaos.killed("kserve-manager")
    chaos.calm()


class Faked:
    """Knative's part: revisions that become ready when told, and shares as they are asked for."""

    def __init__(self, stage: Stage) -> None:
        self.stage, self.revisions, self.newest_ready = stage, dict[str, str](), ""

    @property
    def obj(self) -> Object:
        found = self.stage.target.cluster.get("InferenceService", NAME)
        assert found is not None
        return found

    def write(self, change: Callable[[Object], Object]) -> None:
        """Write what a function makes of the InferenceService."""
        while True:
            with suppress(Conflict):  # KServe wrote its status meanwhile
                self.stage.target.cluster.replace(change(self.obj))
                return

    def traffic(self, wanted: list[tuple[str, int]]) -> None:
        """Wait until KServe asks Knative for shares: revision, or latest, and percentage."""

        def asked() -> list[tuple[str, int]]:
            return [
                ("latest" if each.get("latestRevision") else each["revisionName"], each["percent"])
                for each in self._service()["spec"]["traffic"]
            ]

        until(f"KServe asks for {wanted}", lambda: asked() == wanted)
        self.look()

    def look(self, *, ready: bool = False) -> None:
        """Write the status that Knative would, until KServe has taken it over."""
        service = self._service()
        model = service["spec"]["template"]["spec"]["containers"][0]
        template = json.dumps([model, service["spec"]["template"]["metadata"]], sort_keys=True)
        name = self.revisions.setdefault(template, f"{NAME}-{len(self.revisions) + 1:05d}")
        self.newest_ready = name if ready or not self.newest_ready else self.newest_ready
        status = {
            "observedGeneration": service["metadata"]["generation"],
            "latestCreatedRevisionName": name,
            "latestReadyRevisionName": self.newest_ready,
            "traffic": shares(service["spec"]["traffic"], self.newest_ready),
            "conditions": [{"type": "Ready", "status": "True"}],
        }
        patch = json.dumps({"status": status})
        _kubectl("-n", self.stage.namespace, "patch", _SERVICES, _PREDICTOR, "--subresource=status",
                 "--type=merge", f"--patch={patch}")  # fmt: skip
        until(
            f"KServe has seen {name}",
            lambda: (
                knative.status_of(self.obj).get("latestCreatedRevision") == name
                and knative.status_of(self.obj).get("latestReadyRevision") == self.newest_ready
                and _percents(knative.status_of(self.obj).get("traffic", []))
                == _percents(status["traffic"])
            ),
        )

    def begin(self, version: int) -> str:
        """Write a candidate at 0 %, and return its revision once Knative has made it."""
        made = _version(self.stage, version)
        known = len(self.revisions)
        self.write(lambda obj: knative.with_candidate(obj, knative.snapshot(made)))
        until(f"Knative has the template of version {version}", self._new_template)
        self.look()
        assert len(self.revisions) == known + 1
        return f"{NAME}-{known + 1:05d}"

    def _new_template(self) -> bool:
        service = self._service()
        model = service["spec"]["template"]["spec"]["containers"][0]
        template = json.dumps([model, service["spec"]["template"]["metadata"]], sort_keys=True)
        return template not in self.revisions

    def _service(self) -> Object:
        text = _kubectl("-n", self.stage.namespace, "get", _SERVICES, _PREDICTOR, "-o", "json")
        found: Object = json.loads(text)
        return found


def _percents(traffic: Iterable[Object]) -> list[int]:
    return sorted(each.get("percent") or 0 for each in traffic)


@pytest.fixture
def served(definitions: None, namespace: str, tmp_path: Path) -> Faked:
    """Version 1 is served, as far as KServe knows."""
    stage = Stage(namespace, tmp_path)
    stage.prepare()
    stage.target.cluster.create(_version(stage, 1))
    faked = Faked(stage)
    until("KServe makes a Knative Service", lambda: _exists(namespace))
    faked.traffic([("latest", 100)])
    until("version 1 is rolled out", lambda: knative.observed(faked.obj) == {f"{NAME}-00001": 100})
    return faked


def _version(stage: Stage, version: int) -> Object:
    release = stage.release(version, seed=version)
    return knative.inference_service(stage.spec(), release, stage.target.facts, release.manifest)


def test_a_candidate_ramps_and_is_promoted_and_left_again(served: Faked) -> None:
    second = served.begin(2)
    served.traffic([("latest", 0), (f"{NAME}-00001", 100)])
    with pytest.raises(NotReady, match="would go to"):
        knative.with_weight(served.obj, 10)
    served.look(ready=True)
    assert knative.candidate_ready(served.obj)
    served.write(lambda obj: knative.with_weight(obj, 10))
    served.traffic([("latest", 10), (f"{NAME}-00001", 90)])
    assert knative.observed(served.obj) == {second: 10, f"{NAME}-00001": 90}
    served.write(knative.promoted)
    served.traffic([("latest", 100)])
    assert knative.observed(served.obj) == {second: 100}
    assert len(served.revisions) == 2, "a promotion makes no revision"
    served.write(knative.rolled_back)
    served.traffic([("latest", 0), (second, 100)])  # a split over one revision
    served.traffic([("latest", 0), (f"{NAME}-00001", 100)])  # which KServe reads as going back


def test_the_next_candidate_does_not_feed_the_refused_one(served: Faked) -> None:
    served.begin(2)
    served.look(ready=True)
    served.write(lambda obj: knative.with_weight(obj, 25))
    served.traffic([("latest", 25), (f"{NAME}-00001", 75)])
    served.write(knative.rolled_back)
    served.traffic([("latest", 0), (f"{NAME}-00001", 100)])
    third = served.begin(3)
    with pytest.raises(NotReady, match="would go to"):
        knative.with_weight(served.obj, 5)
    served.look(ready=True)
    served.write(lambda obj: knative.with_weight(obj, 5))
    served.traffic([("latest", 5), (f"{NAME}-00001", 95)])
    assert knative.observed(served.obj) == {third: 5, f"{NAME}-00001": 95}


def test_what_kserve_forbids_in_this_mode(served: Faked) -> None:
    other = {"serving.kserve.io/deploymentMode": "Standard"}

    def moved(obj: Object) -> Object:
        annotations = {**obj["metadata"]["annotations"], **other}
        return {**obj, "metadata": {**obj["metadata"], "annotations": annotations}}

    with pytest.raises(Refused, match="deploymentMode"):
        served.write(moved)


def _exists(namespace: str) -> bool:
    found = _kubectl(
        "-n", namespace, "get", _SERVICES, _PREDICTOR, "--ignore-not-found", "-o", "name"
    )
    return bool(found)


def _kubectl(*words: str, text: str | None = None) -> str:
    return subprocess.run(
        ["kubectl", *words], check=True, capture_output=True, text=True, input=text, timeout=90
    ).stdout
