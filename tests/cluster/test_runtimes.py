"""What the real webhooks say about every runtime, and what KServe makes of it and a model."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from serving.cluster import Object
from serving.kserve.facts import Facts
from serving.kserve.inference_service import inference_service
from serving.kserve.llm_inference_service import llm_inference_service
from serving.kserve.serving_runtimes import serving_runtime
from serving.kube import KubernetesCluster, connect
from serving.manifests import service_name
from serving.runtimes.catalog import RUNTIMES
from serving.runtimes.launch import launch
from tests.cluster.conftest import Running
from tests.cluster.waiting import until
from tests.unit.serving.kserve.objects import nodes, release
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
    env = {each["name"]: each.get("value", "") for each in engine["env"]}
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


def _merged(pod: Object, written: Object) -> Object:
    """Return the engine's container as KServe made it, if it does what was written."""
    (engine,) = pod["spec"]["containers"]
    (ours,) = written["containers"]
    assert (engine["command"], engine["args"]) == (ours["command"], ours["args"])
    assert engine["image"] == ours["image"]
    assert (
        engine["resources"]["limits"]["nvidia.com/gpu"]
        == (ours["resources"]["limits"]["nvidia.com/gpu"])
    )
    told = {each["name"]: each.get("value", "") for each in engine["env"]}
    assert told.items() >= {each["name"]: each.get("value", "") for each in ours["env"]}.items()
    mounts = {each["mountPath"]: each["name"] for each in engine["volumeMounts"]}
    assert mounts.items() >= {m["mountPath"]: m["name"] for m in ours["volumeMounts"]}.items()
    assert engine["securityContext"]["runAsNonRoot"] is False
    (fetching,) = pod["spec"]["initContainers"]
    assert fetching["args"] == written["initContainers"][0]["args"]
    return dict(engine)


@pytest.mark.parametrize("key", KEYS)
def test_an_llm_inference_service_of_a_runtime_is_what_was_written(
    key: str, space: KubernetesCluster
) -> None:
    built = "engine" if key.endswith("-engine") else "checkpoint"
    model = on(RUNTIMES[key], {}, engine={"strategy": built})
    version = 20 + KEYS.index(key)
    written = llm_inference_service(model, release(version), 1, FACTS)
    space.create(written)
    pod = _made(space, f"{service_name(model.name, version)}-kserve")
    engine = _merged(pod, written["spec"]["template"])
    (ours,) = written["spec"]["template"]["containers"]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert engine[probe]["httpGet"]["path"] == ours[probe]["httpGet"]["path"]


@pytest.mark.parametrize("key", ["vllm", "sglang"])
def test_a_replica_over_nodes_is_a_leader_worker_set(key: str, space: KubernetesCluster) -> None:
    """What KServe makes of it, word by word; in test_engines.py its pods run."""
    version = 40 + KEYS.index(key)
    model = nodes(2, 4, runtime=key, replicas=3)
    written = llm_inference_service(model, release(version), 1, FACTS)["spec"]
    space.create(llm_inference_service(model, release(version), 1, FACTS))
    name = f"{service_name(model.name, version)}-kserve-mn"
    until("the LeaderWorkerSet", lambda: space.get("LeaderWorkerSet", name))
    found = space.get("LeaderWorkerSet", name)
    assert found is not None
    made = found["spec"]["leaderWorkerTemplate"]
    assert (found["spec"]["replicas"], made["size"]) == (3, 2)
    leader = _merged(made["leaderTemplate"], written["template"])
    worker = _merged(made["workerTemplate"], written["worker"])
    assert "readinessProbe" in leader
    assert "readinessProbe" not in worker
    for each in ("leaderTemplate", "workerTemplate"):
        assert made[each]["metadata"]["labels"].items() >= written["labels"].items()


def test_one_that_is_not_rolled_out_can_be_installed(space: KubernetesCluster) -> None:
    for runtime in RUNTIMES.values():
        if runtime.refused:
            space.create(serving_runtime(runtime, FACTS), dry_run=True)
