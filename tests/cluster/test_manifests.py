"""What the real API server and KServe's real webhooks say about the objects."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from serving.cluster import Object
from serving.kserve.facts import Facts
from serving.kserve.http_route import http_route, observed, unobserved
from serving.kserve.inference_service import inference_service
from serving.kserve.runtimes import cpu_runtime
from serving.kube import KubernetesCluster, connect
from serving.kube.errors import Refused
from serving.kube.readback import includes
from tests.cluster.conftest import Running
from tests.cluster.waiting import until
from tests.unit.serving.kserve.objects import objects, release, spec

pytestmark = [pytest.mark.cluster, pytest.mark.enable_socket]

OBJECTS = {key: each for key, each in objects().items() if each["kind"] != "VirtualService"}
"""All but Istio's, which is not installed: see test_istio.py."""

SPACES = ("models", "team")


@pytest.fixture(scope="module")
def spaces(cluster: Running) -> Iterator[dict[str, KubernetesCluster]]:
    """The namespaces that the golden objects lie in."""
    found = {name: connect(namespace=name, kubeconfig=cluster.kubeconfig) for name in SPACES}
    made = []
    for name, space in found.items():
        if space.get("Namespace", name) is None:
            space.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
            made.append(name)
    yield found
    for name in made:
        found[name].delete("Namespace", name)


@pytest.mark.parametrize("name", OBJECTS)
def test_an_object_is_accepted_as_it_is(name: str, spaces: dict[str, KubernetesCluster]) -> None:
    written = OBJECTS[name]
    cluster = spaces[written["metadata"]["namespace"]]
    made = cluster.create(written, dry_run=True)
    assert includes(made, written), "the server changed what was written"


def test_a_misspelt_field_is_refused(spaces: dict[str, KubernetesCluster]) -> None:
    written = OBJECTS["cpu-s3"]
    wrong = {**written, "spec": {"predictor": {**written["spec"]["predictor"], "timeOut": 1}}}
    with pytest.raises(Refused, match="timeOut"):
        spaces["models"].create(wrong, dry_run=True)


@pytest.fixture
def served(spaces: dict[str, KubernetesCluster]) -> Iterator[KubernetesCluster]:
    """The CPU engine's runtime and one version, whose pod cannot start: there is no such image."""
    cluster = spaces["models"]
    cluster.create(cpu_runtime(Facts()))
    cluster.create(inference_service(spec(), release(), Facts()))
    yield cluster
    cluster.delete("InferenceService", "chat-v1")
    until("the version to go", lambda: cluster.get("InferenceService", "chat-v1") is None)
    cluster.delete("ServingRuntime", "penstock-cpu")


def _deployment(cluster: KubernetesCluster) -> Object | None:
    return cluster.get("Deployment", "chat-v1-predictor")


def test_what_kserve_makes_of_a_version(served: KubernetesCluster) -> None:
    until("the Deployment", lambda: _deployment(served))
    found = _deployment(served)
    assert found is not None
    pod = found["spec"]["template"]
    (engine,) = pod["spec"]["containers"]
    (fetching,) = pod["spec"]["initContainers"]
    assert [*engine["command"], *engine["args"]] == [
        *("python3", "-m", "serving.engine", "/mnt/models"),
        *("--host=0.0.0.0", "--port=8080", "--model-name=chat"),
    ]
    written = inference_service(spec(), release(), Facts())["spec"]["predictor"]
    assert includes(fetching, written["initContainers"][0])
    (model,) = [m for m in engine["volumeMounts"] if m["mountPath"] == "/mnt/models"]
    assert model["readOnly"]
    assert engine["securityContext"]["runAsNonRoot"]
    assert engine["lifecycle"] == {"preStop": {"sleep": {"seconds": 45}}}
    assert pod["spec"]["terminationGracePeriodSeconds"] == 70
    assert found["spec"]["replicas"] == 1
    assert pod["metadata"]["labels"]["penstock.dev/version"] == "1"
    until("a pod", lambda: served.list("Pod"))
    (real,) = served.list("Pod")
    assert [each["name"] for each in real["spec"]["initContainers"]] == ["storage-initializer"], (
        "KServe added none of its own"
    )
    annotations = real["metadata"]["annotations"]
    assert annotations["prometheus.io/port"] == "8080"
    assert annotations["prometheus.io/path"] == "/metrics"


def test_users_reach_a_version_only_through_its_names_route(served: KubernetesCluster) -> None:
    until("the Service", lambda: served.get("Service", "chat-v1-predictor"))
    service = served.get("Service", "chat-v1-predictor")
    assert service is not None
    (port,) = service["spec"]["ports"]
    assert (port["port"], port["targetPort"]) == (80, 8080)
    assert served.list("HTTPRoute") == []


def test_a_gateway_says_when_it_has_taken_the_shares_over(
    spaces: dict[str, KubernetesCluster], served: KubernetesCluster
) -> None:
    facts = Facts()
    until("the Service", lambda: served.get("Service", "chat-v1-predictor"))
    served.create(http_route("chat", {"chat-v1": 100}, facts))
    try:
        until("the shares", lambda: observed(_route(served), facts) == {"chat-v1": 100})
        route = _route(served)
        wrong = http_route("chat", {"chat-v1": 90, "chat-v2": 10}, facts)["spec"]
        served.replace({**route, "spec": wrong})
        until("the refusal", lambda: "BackendNotFound" in unobserved(_route(served), facts))
        assert observed(_route(served), facts) == {}
    finally:
        served.delete("HTTPRoute", "chat")


def _route(cluster: KubernetesCluster) -> Object:
    found = cluster.get("HTTPRoute", "chat")
    assert found is not None
    return found


def test_other_facts_are_other_objects() -> None:
    assert cpu_runtime(replace(Facts(), registry="r")) != cpu_runtime(Facts())
