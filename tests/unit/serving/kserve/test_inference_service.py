"""What an InferenceService must say, because KServe's defaults would be wrong."""

from __future__ import annotations

import json
from typing import Any

import pytest

from penstock.core.errors import ConfigurationError
from penstock.core.manifest import FileEntry, Manifest
from serving.cluster import Object
from serving.kserve import storage
from serving.kserve.facts import Facts
from serving.kserve.inference_service import inference_service
from serving.kserve.llm_inference_service import llm_inference_service
from serving.kserve.runtimes import CPU_DRAIN_S, Engine, cpu_runtime, engine, scraped
from serving.manifests import Release, ready, version_of
from serving.runtimes.catalog import RUNTIMES
from serving.targets.scrape import pod_of
from tests.unit.serving.kserve.objects import (
    FACTS,
    MANIFEST,
    OWN,
    ROOT,
    gpu,
    nodes,
    release,
    spec,
)


def predictor(obj: Object) -> dict[str, Any]:
    found: dict[str, Any] = obj["spec"]["predictor"]
    return found


def test_clients_ask_for_the_name_without_its_version() -> None:
    runtime = cpu_runtime(FACTS)["spec"]["containers"][0]
    model = predictor(inference_service(spec(), release(), FACTS))["model"]
    merged = [*runtime["command"], *runtime["args"], *model["args"]]  # as KServe merges them
    assert merged == [
        *("python3", "-m", "serving.engine", "/mnt/models"),
        *("--host=0.0.0.0", "--port=8080", "--model-name=chat"),
    ]


def test_no_two_versions_share_a_name_or_a_place() -> None:
    first = inference_service(spec(), release(1), FACTS)
    second = inference_service(spec(), release(2), FACTS)
    assert first["metadata"]["name"] != second["metadata"]["name"]
    assert version_of(second["metadata"]["name"]) == 2


def test_the_start_may_take_as_long_as_the_spec_says() -> None:
    slow = spec(rollout={"ready_timeout_s": 601})
    probe = predictor(inference_service(slow, release(), FACTS))["model"]["startupProbe"]
    assert probe["failureThreshold"] * probe["periodSeconds"] >= 601


def test_a_removed_pod_is_not_killed_while_it_drains() -> None:
    body = predictor(inference_service(spec(), release(), Facts(drain_s=100)))
    sleep = body["model"]["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert body["terminationGracePeriodSeconds"] > sleep + CPU_DRAIN_S
    assert sleep == 100


def test_devices_are_asked_for_and_the_model_is_split_over_them() -> None:
    model = predictor(inference_service(gpu(2), release(), OWN))["model"]
    assert model["runtime"] == "penstock-vllm"
    assert model["resources"]["limits"]["nvidia.com/gpu"] == "2"
    assert "--tensor-parallel-size=2" in model["args"]


def test_an_argument_of_a_person_comes_last_and_contradicts_nothing() -> None:
    given = gpu(2, runtime_args=["--seed=1"])
    assert engine(given).args(given)[-1] == "--seed=1"
    with pytest.raises(ConfigurationError, match=r"hardware\.count"):
        inference_service(gpu(2, runtime_args=["-tp=1"]), release(), FACTS)


def test_large_weights_may_take_longer_than_the_spec_says() -> None:
    files = (FileEntry("model.safetensors", 16_000_000_000, ROOT),)
    large = Manifest(MANIFEST.source, files)
    probe = predictor(inference_service(gpu(1), release(), FACTS, large))["model"]["startupProbe"]
    assert probe["failureThreshold"] * probe["periodSeconds"] >= 300 + 16e9 / 50e6


@pytest.mark.parametrize("runtime", ["sglang", "tensorrt-llm", "triton", "tgi"])
def test_every_runtime_is_named_probed_and_scraped_as_it_is(runtime: str) -> None:
    obj = inference_service(gpu(1, runtime=runtime), release(), FACTS)
    model = predictor(obj)["model"]
    assert model["runtime"] == f"penstock-{runtime}"
    path = obj["metadata"]["annotations"]["prometheus.io/path"]
    assert path == ("/prometheus/metrics" if runtime == "tensorrt-llm" else "/metrics")
    ready = model["readinessProbe"]["httpGet"]["path"]
    assert ready == ("/health/ready" if runtime == "triton" else "/health")
    told = {each["name"]: each["value"] for each in model.get("env", [])}
    assert told.get("PENSTOCK_NAME") == (None if runtime in {"sglang", "tgi"} else "chat")
    assert model["image"] == RUNTIMES[runtime].image


def test_a_pod_is_scraped_where_its_engine_counts() -> None:
    pod = {"uid": "u", "name": "p"}
    for key, runtime in RUNTIMES.items():
        annotations = scraped(Engine(runtime))
        obj: Object = {"metadata": {**pod, "annotations": annotations}, "spec": {"containers": []}}
        found = pod_of(obj, "m")
        assert (found.address, found.path) == (f":{runtime.metrics_port}", runtime.metrics)
        assert found.address == (":8082" if key == "triton-engine" else ":8080")
    assert scraped(Engine(RUNTIMES["cpu"]), 8000)["prometheus.io/port"] == "8000"
    assert scraped(Engine(RUNTIMES["triton-engine"]), 8000)["prometheus.io/port"] == "8082"


def test_tensorrt_llm_may_be_served_by_another_image() -> None:
    image = "nvcr.io/nvidia/tensorrt-llm/release:1.2.0"
    model = gpu(1, runtime="tensorrt-llm", engine={"image": image})
    assert predictor(inference_service(model, release(), FACTS))["model"]["image"] == image


def test_what_answers_no_openai_requests_is_not_rolled_out() -> None:
    with pytest.raises(ConfigurationError, match="no OpenAI requests") as refused:
        inference_service(gpu(1, runtime="triton", engine={"strategy": "engine"}), release(), FACTS)
    assert "tensorrt-llm" in refused.value.hint


def test_the_cpu_engine_does_not_take_devices() -> None:
    with pytest.raises(ConfigurationError, match="nvidia-l4"):
        inference_service(gpu(1, runtime="cpu"), release(), FACTS)


def test_an_argument_that_kserve_would_expand_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="expands"):
        inference_service(spec(runtime_args=["--x={{.Name}}"]), release(), FACTS)


def test_files_are_verified_whatever_they_come_from() -> None:
    places = [f"s3://b/p/{ROOT.hex}", f"pvc://c/p/{ROOT.hex}", "hf://o/m@main"]
    for uri in places:
        body = predictor(inference_service(spec(), release(1, uri), FACTS))
        (container,) = body["initContainers"]
        assert container["name"] == "storage-initializer"  # or KServe would add its own
        assert f"--root={ROOT}" in container["args"]
        assert container["args"][-2:] == [body["model"]["storageUri"], "/mnt/models"]
        (theirs,) = [m for m in body["model"]["volumeMounts"] if m["mountPath"] == "/mnt/models"]
        (ours,) = [m for m in container["volumeMounts"] if m["mountPath"] == "/mnt/models"]
        assert theirs == {**ours, "readOnly": True}


def test_the_manifest_goes_along_when_it_is_known_and_fits() -> None:
    (*_, given, _uri, _folder) = storage.init_container(release(), FACTS, MANIFEST)["args"]
    text = given.removeprefix("--manifest=")
    assert Manifest.from_json(text) == MANIFEST
    assert json.dumps(json.loads(text), separators=(",", ":")) == text
    many = Manifest(MANIFEST.source, tuple(FileEntry(f"{n:05}", n, ROOT) for n in range(2000)))
    assert len(storage.init_container(release(), FACTS, many)["args"]) == 3


def test_credentials_are_named_not_written() -> None:
    container = storage.init_container(release(), OWN)
    assert container["envFrom"] == [{"secretRef": {"name": "storage-keys"}}]
    assert not any("KEY" in each["name"] or "TOKEN" in each["name"] for each in container["env"])


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("hf://org/name@v1.0", "hf://org/name:v1.0"),
        ("hf://org/name:abc", "hf://org/name:abc"),
        (f"s3://b/p/q/{ROOT.hex}/", f"s3://b/p/q/{ROOT.hex}"),
        (f"pvc://claim/{ROOT.hex}", f"pvc://claim/{ROOT.hex}"),
    ],
)
def test_a_place_is_written_as_kserve_reads_it(uri: str, expected: str) -> None:
    assert storage.storage_uri(Release(1, uri, ROOT)) == expected


@pytest.mark.parametrize(
    "uri",
    ["", "hf://org/name", "file:///models/x", "s3://bucket", "s3://b/latest", "pvc://claim/latest"],
)
def test_a_place_that_could_change_or_not_be_reached_is_refused(uri: str) -> None:
    with pytest.raises(ConfigurationError, match="allowed"):
        storage.storage_uri(Release(1, uri, ROOT))


def test_images_come_from_the_registry_of_the_facts() -> None:
    assert Facts(version="1").image("x") == "x:1"
    assert Facts(version="1", registry="ghcr.io/org").image("x") == "ghcr.io/org/x:1"
    assert OWN.image("x") == "registry.test/penstock/x:1.2.3"


def test_an_llm_inference_service_fetches_verifies_and_serves_the_same_way() -> None:
    obj = llm_inference_service(spec(), release(), 10, FACTS)
    template = obj["spec"]["template"]
    isvc = predictor(inference_service(spec(), release(), FACTS))
    assert template["initContainers"] == isvc["initContainers"]
    assert obj["spec"]["storageInitializer"] == {"enabled": False}
    assert "--port=8000" in template["containers"][0]["args"]
    assert obj["spec"]["labels"] == obj["metadata"]["labels"]


def test_an_llm_inference_service_refuses_what_it_cannot_do() -> None:
    long = spec(name="n" * 40)
    with pytest.raises(ConfigurationError, match="longer than 43"):
        llm_inference_service(long, release(10), 10, FACTS)
    assert len(f"{'n' * 40}-v1-kserve-workload-svc") == 63
    llm_inference_service(long, release(1), 10, FACTS)


def test_a_group_of_pods_is_one_engine_whose_leader_answers() -> None:
    two = nodes(2, 4)
    obj = llm_inference_service(two, release(), 10, OWN, MANIFEST)["spec"]
    assert obj["parallelism"] == {"tensor": 2, "data": 2, "dataLocal": 1}
    (leader,), (worker,) = obj["template"]["containers"], obj["worker"]["containers"]
    assert worker["args"] == [*leader["args"], "--headless"]
    told = " ".join(leader["args"])
    assert "--tensor-parallel-size=2" in told
    assert "--pipeline-parallel-size=2" in told
    assert "--nnodes=2 --node-rank=$(LWS_WORKER_INDEX)" in told
    assert "readinessProbe" in leader
    assert not [key for key in worker if key.endswith("Probe")]
    for each in (leader, worker):
        assert each["resources"]["limits"]["nvidia.com/gpu"] == "2"
        assert each["volumeMounts"] == leader["volumeMounts"]
    assert obj["worker"]["initContainers"] == obj["template"]["initContainers"]


def test_a_group_of_pods_is_no_inference_service() -> None:
    with pytest.raises(ConfigurationError, match="replica is one pod") as problem:
        inference_service(nodes(2, 4), release(), FACTS)
    assert "mode: llmisvc" in problem.value.hint
    with pytest.raises(ConfigurationError, match="runs triton in one node") as problem:
        llm_inference_service(nodes(2, 4, runtime="triton"), release(), 10, FACTS)
    assert "vllm, sglang" in problem.value.hint
    with pytest.raises(ConfigurationError, match="a stage is inside a node, which has 2"):
        llm_inference_service(nodes(2, 4, serving={"tensor_parallel": 4}), release(), 10, FACTS)


@pytest.mark.parametrize(
    "hardware",
    [
        {"accelerator": "nvidia-l4", "count": 3, "nodes": 2},
        {"accelerator": "cpu", "count": 2, "nodes": 2},
        {"accelerator": "nvidia-h100-80gb", "count": 4, "nodes": 2, "claim": "dra"},
        {"accelerator": "nvidia-l4", "count": 9, "nodes": 9},
    ],
)
def test_nodes_that_cannot_be(hardware: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="nodes"):
        spec(hardware=hardware)


def test_whether_it_is_ready_is_read_from_kserves_conditions() -> None:
    obj = inference_service(spec(), release(), FACTS)
    assert not ready(obj)[0]
    conditions = [{"type": "PredictorReady", "status": "True"}, {"type": "Ready", "status": "True"}]
    assert ready({**obj, "status": {"conditions": conditions}}) == (True, "")
