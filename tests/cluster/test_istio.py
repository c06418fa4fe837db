"""Mode `istio` with real pods and the real API server. **Istio is faked**: tests/fakes/istio.py.

The API server has Istio's definition of a VirtualService; what routes by it is ours.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from serving.kserve.facts import PREDICTOR_PORT
from serving.kube import connect
from serving.rollout import events
from tests.cluster.build import module_folder
from tests.cluster.stage import NAME, POLICY, Stage
from tests.fakes import istio

pytestmark = [pytest.mark.cluster, pytest.mark.wider, pytest.mark.alone, pytest.mark.enable_socket]

_VIRTUAL_SERVICES = "virtualservices.networking.istio.io"


@pytest.fixture(scope="module")
def definition(cluster: Any) -> Iterator[None]:
    """Istio's definition is there, as its chart `base` has it."""
    folder = module_folder("istio.io/api", module="kserve") / "kubernetes"
    text = (folder / "customresourcedefinitions.gen.yaml").read_text()
    every = [each for each in yaml.load_all(text, yaml.CSafeLoader) if each]
    found = next(each for each in every if each["metadata"]["name"] == _VIRTUAL_SERVICES)
    _kubectl("apply", "--server-side", "-f", "-", text=json.dumps(found))
    _kubectl("wait", "--for=condition=Established", f"crd/{_VIRTUAL_SERVICES}", "--timeout=30s")
    yield
    _kubectl("delete", "crd", _VIRTUAL_SERVICES)


@pytest.fixture
def stage(definition: None, cluster: Any, namespace: str, tmp_path: Path) -> Iterator[Stage]:
    plain = connect(kubeconfig=cluster.kubeconfig, namespace=namespace)
    clusters: dict[str, str] = {}

    def address(service: str) -> str:
        if service not in clusters:
            found = plain.get("Service", service)
            assert found is not None
            clusters[service] = f"{found['spec']['clusterIP']}:{PREDICTOR_PORT}"
        return clusters[service]

    with istio.gateway(lambda: plain.get("VirtualService", NAME), address) as url:
        made = Stage(namespace, tmp_path, mode="istio", more={"address": url})
        made.prepare()
        yield made


def test_a_good_candidate_is_promoted_and_a_bad_one_rolled_back(stage: Stage) -> None:
    stage.deploy(1)
    with stage.users() as users, stage.driven():
        stage.begin(2)
        record = stage.until(lambda r: r.over)
        assert record.phase == "promoted", (record.reason, stage.logs())
        assert stage.gone("m-v1")
        stage.begin(3, "--fault=live-errors=0.5")
        record = stage.until(lambda r: r.candidate == "m-v3" and r.over)
        assert record.phase == "rolled_back", (record.reason, stage.logs())
        assert stage.gone("m-v3")
    assert [each for each in users.failures if "injected on purpose" not in each] == []
    text = events.certificate(POLICY.model_dump_json(), stage.record, stage.target.log.lines(NAME))
    assert events.verify(text)[-1].record.phase == "rolled_back"
    assert stage.target.cluster.get("HTTPRoute", NAME) is None


def _kubectl(*words: str, text: str | None = None) -> str:
    return subprocess.run(
        ["kubectl", *words], check=True, capture_output=True, text=True, input=text, timeout=90
    ).stdout
