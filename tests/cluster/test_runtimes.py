"""What the real webhooks say about every runtime, and what KServe makes of it and a model."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from serving.cluster import Object
from serving.kserve.facts import Facts
from serving.kserve.inference_service import inference_service
from serving.kserve.serving_runtimes import serving_runtime
from serving.kube import KubernetesCluster, connect
from serving.manifests import service_name
from serving.runtimes.catalog import RUNTIMES
from serving.runtimes.launch import launch
from tests.cluster.conftest import Running
from tests.cluster.waiting import until
from tests.unit.serving.kserve.objects import release
from tests.unit.serving.runtimes.wishes import on

pytestmark = [pytest.mark.cluster, pytest.mark.wider, pytest.mark.enable_socket]

SPACE = "runtimes"
FACTS = Facts(namespace=SPACE)
KEYS = [key for key, each in RUNTIMES.items() if not each.refused and not each.own]


@pytest.fixture(scope="module")
def space(cluster: Running) -> Iterator[KubernetesCluster]:
    """A namespace where nothing can start: there are neither devices nor images."""
    found = connect(namespace=SPACE, kubeconfig=cluster.kubeconfig)
    found.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SPACE}})
    yield found
    found.delete("Namespace", SPACE)


def _made(space: KubernetesCluster, name: str) -> Object:
    until("the Deployment", lambda: space.get("Deployment", name))
    found = space.get("Deployment", name)
    assert found is not None
    pod: Object = found["spec"]["template"]
    return pod


@pytest.mark.parametrize("key", KEYS)
def test_a_runtime_and_a_model_are_merged_as_they_are_meant(
    key: str, space: KubernetesCluster
) -> None:
    runtime, version = RUNTIMES[key], KEYS.index(key) + 1
    context = {"context": 8192} if "context" in runtime.can else {}
    image = {"image": f"{runtime.image}-other"} if runtime.image_from_spec else {}
    built = "engine" if key.endswith("-engine") else "checkpoint"
    model = on(runtime, context, engine={"strategy": built, **image})
    space.create(serving_runtime(runtime, FACTS))
    space.create(inference_service(model, release(version), FACTS))

    pod = _made(space, f"{service_name(model.name, version)}-predictor")
    (engine,) = pod["spec"]["containers"]
    made = launch(model)
    assert engine["command"] == list(runtime.command)
    assert engine["args"] == [*runtime.args, *made.args]
    env = {each["name"]: each.get("value") for each in engine["env"]}
    assert env.items() >= {**runtime.env, **made.env}.items()
    # KServe takes the Hugging Face server's build for devices by its tag
    tag = "-gpu" if key == "huggingface" else "-other" if image else ""
    assert engine["image"] == runtime.image + tag
    assert engine["resources"]["limits"]["nvidia.com/gpu"] == "4"
    assert engine["readinessProbe"]["httpGet"]["path"] == runtime.ready
    assert engine["livenessProbe"]["httpGet"]["path"] == runtime.alive
    assert engine["startupProbe"]["periodSeconds"] == 2
    assert pod["metadata"]["annotations"]["prometheus.io/path"] == runtime.metrics
    shared = [each for each in engine["volumeMounts"] if each["mountPath"] == "/dev/shm"]  # noqa: S108
    volumes = {each["name"]: each for each in pod["spec"]["volumes"]}
    assert volumes[shared[0]["name"]]["emptyDir"] == {"medium": "Memory"}


def test_one_that_is_not_rolled_out_can_be_installed(space: KubernetesCluster) -> None:
    for runtime in RUNTIMES.values():
        if runtime.refused:
            space.create(serving_runtime(runtime, FACTS), dry_run=True)
