"""Real pods fetch and verify with the real library; a changed byte keeps a version from serving."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from penstock.core.identity import ModelRef
from penstock.core.manifest import Manifest
from penstock.core.spec import ModelSpec
from registry.publish import publish
from registry.s3 import S3Access, client
from registry.store import manifest_of
from serving.cluster import Object
from serving.kserve.inference_service import inference_service
from serving.kserve.llm_inference_service import llm_inference_service
from serving.kserve.runtimes import cpu_runtime
from serving.kube import connect
from serving.manifests import Release, ready, service_name
from tests.cluster.places import chosen
from tests.cluster.storage_world import CLAIM, KEYS, World, claim, facts, hub, of_hub, secret
from tests.cluster.waiting import until
from tests.fakes.tiny_model import make_tiny_model

pytestmark = [pytest.mark.cluster, pytest.mark.enable_socket]
pytest.importorskip("boto3", reason="extra cluster: pip install 'penstock[cluster]'")

SPEC = ModelSpec.model_validate({"name": "tiny", "source": "hf://org/tiny"})
SPACE = "storage"
_SECONDS = 120


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model small enough to train in no time: its answers do not matter."""
    return make_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def manifest(checkpoint: Path) -> Manifest:
    """The checkpoint's manifest."""
    return manifest_of(checkpoint, ModelRef.parse("hf://org/tiny@main"))


@pytest.fixture(scope="module")
def state() -> dict[str, str]:
    """What the running cluster says of itself."""
    path = chosen().state
    if not path.exists():
        pytest.skip("no cluster runs: python -m tests.cluster up")
    found: dict[str, str] = json.loads(path.read_text())
    return found


@pytest.fixture(scope="module")
def world(state: dict[str, str]) -> Iterator[World]:
    """A namespace with the runtime."""
    here = facts(SPACE, state["s3"])
    cluster = connect(namespace=SPACE, kubeconfig=state["kubeconfig"])
    cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SPACE}})
    cluster.create(secret())
    cluster.create(cpu_runtime(here))
    yield World(cluster, here)
    cluster.delete("Namespace", SPACE)
    until("the namespace to go", lambda: cluster.get("Namespace", SPACE) is None, _SECONDS)


@pytest.fixture
def access(state: dict[str, str]) -> S3Access:
    """The cluster's S3, with a bucket."""
    found = S3Access(
        state["s3"], "us-east-1", KEYS["AWS_ACCESS_KEY_ID"], KEYS["AWS_SECRET_ACCESS_KEY"]
    )
    client(found).create_bucket(Bucket="models")
    return found


def serve(world: World, release: Release, manifest: Manifest | None = None) -> Object:
    """Create a version and return its object once it is ready."""
    name = service_name("tiny", release.version)
    world.cluster.create(inference_service(SPEC, release, world.facts, manifest))
    until(f"{name} ready", lambda: ready(_seen(world, name))[0], _SECONDS)
    return _seen(world, name)


def _seen(world: World, name: str) -> Object:
    found = world.cluster.get("InferenceService", name)
    assert found is not None
    return found


def said(world: World, name: str, container: str = "storage-initializer") -> str:
    """Return what a version's fetching container has written so far, in all its attempts."""
    text = ""
    for pod in world.pods(name):
        for previous in (True, False):
            try:
                text += world.cluster.logs(
                    pod["metadata"]["name"], container=container, previous=previous
                )
            except Exception:  # noqa: BLE001, S112 - it has not started yet
                continue
    return text


def asked(world: World, name: str) -> str:
    """Return what a version answers, asked through its Service."""
    service = world.cluster.get("Service", f"{name}-predictor")
    assert service is not None
    url = f"http://{service['spec']['clusterIP']}/v1/chat/completions"
    body = {"model": "tiny", "messages": [{"role": "user", "content": "a"}], "max_tokens": 3}
    answer = httpx.post(url, json=body, trust_env=False, timeout=30).raise_for_status()
    return str(answer.json()["model"])


@pytest.mark.parametrize("listed", [False, True], ids=["published manifest", "given manifest"])
def test_a_version_from_s3_serves(
    world: World, access: S3Access, checkpoint: Path, manifest: Manifest, listed: bool
) -> None:
    version = 1 + listed
    uri = publish(checkpoint, manifest, "s3://models/tiny", access)
    name = service_name("tiny", version)
    serve(world, Release(version, uri, manifest.root), manifest if listed else None)
    assert f"{manifest.root}" in said(world, name)
    assert "verified" in said(world, name)
    assert asked(world, name) == "tiny"
    world.cluster.delete("InferenceService", name)


def test_a_version_from_the_hubs_mirror_serves(
    world: World, checkpoint: Path, manifest: Manifest, tmp_path: Path
) -> None:
    repository = tmp_path / "org" / "tiny"
    shutil.copytree(checkpoint, repository)
    (repository / "notes.txt").write_text("nothing that is served")
    with hub(tmp_path):
        release = Release(3, "hf://org/tiny@main", manifest.root)
        serve(world, release, of_hub(manifest, "org/tiny"))
        assert asked(world, "tiny-v3") == "tiny"
        world.cluster.delete("InferenceService", "tiny-v3")


def test_a_byte_that_was_changed_keeps_a_version_from_serving(
    world: World, access: S3Access, checkpoint: Path, manifest: Manifest
) -> None:
    uri = publish(checkpoint, manifest, "s3://models/changed", access)
    key = f"changed/{manifest.root.hex}/model.safetensors"
    weights = bytearray((checkpoint / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    client(access).put_object(Bucket="models", Key=key, Body=bytes(weights))
    release = Release(4, uri, manifest.root)
    world.cluster.create(inference_service(SPEC, release, world.facts))
    until("the refusal", lambda: "changed: model.safetensors" in said(world, "tiny-v4"), _SECONDS)

    def told() -> bool:
        status = _seen(world, "tiny-v4").get("status", {}).get("modelStatus", {})
        return "changed: model.safetensors" in str(status.get("lastFailureInfo", {}))

    until("KServe to say so", told, _SECONDS)
    assert not ready(_seen(world, "tiny-v4"))[0]
    for pod in world.pods("tiny-v4"):
        (engine,) = pod["status"]["containerStatuses"]
        assert not engine["started"]
    world.cluster.delete("InferenceService", "tiny-v4")


def test_a_mounted_claim_is_verified_before_it_is_served(
    world: World, checkpoint: Path, manifest: Manifest
) -> None:
    folder = claim(chosen(), SPACE)
    uri = publish(checkpoint, manifest, f"pvc://{CLAIM}/tiny={folder}")
    serve(world, Release(5, uri, manifest.root))
    assert "verified" in said(world, "tiny-v5")
    assert asked(world, "tiny-v5") == "tiny"
    world.cluster.delete("InferenceService", "tiny-v5")
    (folder / "tiny" / manifest.root.hex / "config.json").write_text("{}")
    world.cluster.create(inference_service(SPEC, Release(6, uri, manifest.root), world.facts))
    until("the refusal", lambda: "changed: config.json" in said(world, "tiny-v6"), _SECONDS)
    world.cluster.delete("InferenceService", "tiny-v6")


def test_an_llm_inference_service_fetches_verifies_and_serves(
    world: World, access: S3Access, checkpoint: Path, manifest: Manifest
) -> None:
    uri = publish(checkpoint, manifest, "s3://models/tiny", access)
    name = "tiny-v7"
    world.cluster.create(
        llm_inference_service(SPEC, Release(7, uri, manifest.root), 100, world.facts)
    )

    def is_ready() -> bool:
        found = world.cluster.get("LLMInferenceService", name)
        return found is not None and ready(found)[0]

    until(f"{name} ready", is_ready, _SECONDS)
    world.cluster.delete("LLMInferenceService", name)
