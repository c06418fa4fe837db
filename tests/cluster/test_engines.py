"""Every engine as pods beside devices: scheduled, started by its own words, probed, asked, scraped.

In the image is a stub of the engine: a program of the engine's name that knows the engine's
options, endpoints and metrics. Everything around it is real.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from serving import deploy as serving_versions
from serving.cluster import Object
from serving.gpus.surge import Beside, Refuse
from serving.kserve.serving_runtimes import serving_runtime
from serving.manifests import Release
from serving.runtimes.catalog import RUNTIMES
from tests.cluster import images
from tests.cluster.containerfiles import stand_in
from tests.cluster.person import Person, hub
from tests.cluster.places import REPOSITORY
from tests.cluster.served import answers, kubectl, published
from tests.cluster.stage import PATIENT, Stage
from tests.cluster.waiting import until
from tests.fakes.engine_process import PROGRAMS, program
from tests.fakes.tiny_model import make_tiny_model
from tests.unit.serving.runtimes.shown import as_shown

pytestmark = [pytest.mark.cluster, pytest.mark.wider, pytest.mark.alone, pytest.mark.enable_socket]

KEYS = [key for key, each in RUNTIMES.items() if not each.refused and not each.own]
_IMAGE = "engine-stubs:1"
_S = 300.0
_GROUP = "leaderworkerset.sigs.k8s.io/worker-index"


@pytest.fixture(scope="module", autouse=True)
def image(tmp_path_factory: pytest.TempPathFactory, cluster: Any) -> None:
    """Have the node take the stubs' image for that of every engine."""
    folder = tmp_path_factory.mktemp("programs")
    files = {}
    for number, (path, key) in enumerate(PROGRAMS.items()):
        files[path] = folder / str(number)
        files[path].write_text(program(key, REPOSITORY))
        files[path].chmod(0o755)
    (thin,) = images.thin_images(stand_in())[:1]
    made = images.Image(_IMAGE, files, path=thin.path, base=thin.base)
    images.push(made, f"http://{cluster.registry}", print)
    names = [RUNTIMES[key].image for key in KEYS]
    names += [f"{RUNTIMES['huggingface'].image}-gpu"]  # KServe's word for its build for devices
    images.taken_for(cluster.registry, _IMAGE, names)


@pytest.fixture
def stage(namespace: str, tmp_path: Path) -> Stage:
    return _prepared(namespace, tmp_path)


def _prepared(namespace: str, folder: Path, mode: str = "route") -> Stage:
    made = Stage(namespace, folder, mode=mode, policy=PATIENT)
    made.prepare(runtime=False)
    until("devices that others give back", lambda: _free(made, 2), _S)
    return made


def _free(stage: Stage, devices: int) -> bool:
    spec = stage.spec(**_wanted("vllm", replicas=devices))
    return isinstance(stage.target.surge(spec, "m-v1", ""), Beside)


def _wanted(key: str, *, replicas: int = 1, **hardware: Any) -> dict[str, Any]:
    """Return what a spec says of an engine; the stub needs less than the engine would."""
    beside = {"accelerator": "nvidia-l4", "cpu": "400m", "memory": "512Mi", **hardware}
    built = {"engine": {"strategy": "engine"}} if key.endswith("-engine") else {}
    name = key.removesuffix("-engine")
    return {"hardware": beside, "runtime": name, "replicas": replicas, **built}


def _release(stage: Stage, key: str) -> Release:
    """Publish a checkpoint; an engine that was built lies in folders of its own."""
    folder = stage.folder / "model"
    parts = ("engine", "tokenizer") if key.endswith("-engine") else ("",)
    for part in parts:
        make_tiny_model(folder / part)
    return published(stage, folder, 1)


def _serve(stage: Stage, key: str, **wanted: Any) -> list[Object]:
    """Serve version 1 to everybody; return its pods."""
    spec = stage.spec(**_wanted(key, **wanted))
    serving_versions.deploy(stage.site, spec, _release(stage, key))
    return stage.target.pods("m-v1")


def _asked(stage: Stage) -> None:
    with stage.users(10.0) as users:
        until("users", lambda: users.asked > 20)
    assert users.failures == []


def _scraped(pod: Object) -> str:
    told = pod["metadata"]["annotations"]
    port, path = told["prometheus.io/port"], told["prometheus.io/path"]
    return httpx.get(f"http://{pod['status']['podIP']}:{port}{path}", trust_env=False).text


def _restarts(pod: Object) -> int:
    return sum(each["restartCount"] for each in pod["status"]["containerStatuses"])


@pytest.mark.parametrize("key", KEYS)
def test_an_engine_starts_as_it_is_written_and_answers_users(key: str, stage: Stage) -> None:
    stage.target.cluster.create(serving_runtime(RUNTIMES[key], stage.target.facts))
    (pod,) = _serve(stage, key)
    (engine,) = pod["spec"]["containers"]
    assert engine["resources"]["limits"]["nvidia.com/gpu"] == "1"
    _asked(stage)
    as_shown(key, _scraped(pod))
    (pod,) = stage.target.pods("m-v1")
    assert _restarts(pod) == 0, "its probes gave it the time that it takes"


@pytest.mark.parametrize("key", ["vllm", "sglang"])
def test_a_replica_over_nodes_is_one_engine_that_its_leader_answers_for(
    key: str, namespace: str, tmp_path: Path
) -> None:
    """Both of its pods are on the one node here, with a device each."""
    stage = _prepared(namespace, tmp_path, "llmisvc")
    pods = _serve(stage, key, count=2, nodes=2)
    assert sorted(pod["metadata"]["labels"][_GROUP] for pod in pods) == ["0", "1"]
    _asked(stage)
    scraper = stage.target._scraper
    (leader,) = scraper.pods("m-v1")
    assert leader.ready
    as_shown(key, _scraped(next(p for p in pods if p["metadata"]["name"] == leader.name)))

    found = stage.target.surge(stage.spec(**_wanted(key, count=2, nodes=2)), "m-v2", "m-v1")
    assert isinstance(found, Refuse)
    assert "m-v2 needs 2 x nvidia.com/gpu" in found.reason

    (worker,) = (p for p in pods if p["metadata"]["labels"][_GROUP] == "1")
    kubectl(stage, "delete", "pod", worker["metadata"]["name"], "--wait=false")
    before = {pod["metadata"]["uid"] for pod in pods}

    def anew() -> bool:
        uids = {each["metadata"]["uid"] for each in stage.target.pods("m-v1")}
        return len(uids) == 2 and not uids & before and all(p.ready for p in scraper.pods("m-v1"))

    until("a group of new pods", anew, _S)
    until("the gateway", lambda: answers(stage))
    _asked(stage)


def test_what_is_planned_for_a_device_is_what_a_run_serves(
    stage: Stage, cluster: Any, tmp_path: Path
) -> None:
    """`penstock run` with nothing chosen but the device: runtime and precision are sized."""
    runtime = serving_runtime(RUNTIMES["vllm"], stage.target.facts)
    stage.target.cluster.create(runtime)
    with hub(tmp_path / "hub") as url:
        person = Person(stage, tmp_path, {"HF_ENDPOINT": url, "KUBECONFIG": cluster.kubeconfig})
        wanted = _wanted("auto")
        code, said = person.run("hf://acme/v1", **wanted)
        assert code == 0, said
        _asked(stage)
        assert "vllm on 1 x nvidia-l4" in said
        (pod,) = stage.target.pods("m-v1")
        (engine,) = pod["spec"]["containers"]
        assert engine["image"] == RUNTIMES["vllm"].image
        limit = [each for each in engine["args"] if each.startswith("--max-num-seqs=")]
        assert limit, "the number of sequences that the arithmetic assumed is the engine's limit"
        code, planned = person.call("plan", str(tmp_path / "model.yaml"))
        assert code == 0
        assert "m-v1 runs so already, the checkpoint aside" in planned
