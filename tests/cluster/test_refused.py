"""What cannot serve gets no traffic: rolled back with its reason, while users notice nothing.

Full node, unpullable image, wrong storage, changed weights, broken model, missing runtime.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from penstock.core.errors import ConfigurationError, NotReady, StoreError
from penstock.core.settings import Settings
from serving.kserve.runtimes import CPU, cpu_runtime
from serving.manifests import Release
from tests.cluster.conftest import Running
from tests.cluster.served import Served, lying_at, penstock, published, served
from tests.cluster.stage import CLAIM, POLICY
from tests.cluster.storage_world import KEYS, secret
from tests.fakes.tiny_model import make_tiny_model

pytestmark = [pytest.mark.cluster, pytest.mark.enable_socket]

ENGINE_S = 75.0
"""A broken model is seen when its engine has been started."""


@pytest.fixture(scope="module")
def there(cluster: Running, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A version with users and a controller; every test leaves it as it was."""
    with served(tmp_path_factory.mktemp("served")) as found, found.stage.driven():
        yield found


def test_a_full_node_rolls_a_candidate_back(there: Served) -> None:
    with there.otherwise(cpu="100"):
        reason = there.rolled_back()
    assert reason.startswith("the candidate is not ready after ")
    assert (
        "not scheduled: 0/1 nodes are available: 1 Insufficient cpu; it asks for 100 cpu" in reason
    )
    assert "lower hardware.cpu" in reason


def test_a_full_node_refuses_a_version_that_replaces(there: Served) -> None:
    quick = POLICY.model_copy(update={"ready_timeout_s": 10.0})
    with (
        there.otherwise(cpu="100", policy=quick) as stage,
        pytest.raises(NotReady, match="Insufficient cpu; it asks for 100 cpu") as problem,
    ):
        stage.deploy(there.next())
    assert "the version that was served still is" in problem.value.hint
    there.untouched()


def test_an_image_that_cannot_be_pulled(there: Served, cluster: Running) -> None:
    with there.otherwise(more={"images": f"{cluster.registry}/nobody"}):
        reason = there.rolled_back()
    assert "storage-initializer: " in reason
    assert "ImagePull" in reason
    assert f"{cluster.registry}/nobody/penstock-storage-python" in reason
    assert "not found; is target.kserve.images right" in reason


def test_a_claim_that_is_not_there(there: Served) -> None:
    with there.otherwise(more={"storage": f"pvc://nowhere/x={there.stage.store}"}):
        reason = there.rolled_back()
    assert 'persistentvolumeclaim "nowhere" not found; create the claim' in reason


def test_a_claim_that_is_mounted_elsewhere(there: Served, tmp_path: Path) -> None:
    with there.otherwise(more={"storage": f"pvc://{CLAIM}/elsewhere={tmp_path}"}):
        reason = there.rolled_back()
    assert f"pvc://{CLAIM}/elsewhere/" in reason
    assert "nothing lies there; target.kserve.storage must name the claim" in reason


def test_a_bucket_that_is_not_there(there: Served, cluster: Running, monkeypatch: Any) -> None:
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", cluster.s3)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with there.otherwise(more={"storage": "s3://nowhere/x"}) as stage:
        with pytest.raises(StoreError, match=r"s3://nowhere/x/.*: refused: NoSuchBucket") as told:
            stage.release(there.next())
        assert "check the bucket" in told.value.hint
    release = there.stage.release(there.version + 1)
    lost = Release(release.version, f"s3://nowhere/x/{release.root.hex}", release.root)
    there.stage.target.cluster.create(secret())
    settings = Settings(
        home=there.stage.settings.home, s3_endpoint=cluster.s3, storage_secret="storage-keys"
    )
    with there.otherwise(settings=settings):
        reason = there.rolled_back(lost)
    assert f"{lost.storage_uri}: cannot be fetched: " in reason
    assert "'nowhere' not found" in reason
    assert "check the address, the Secret" in reason


def test_weights_that_were_changed_after_they_were_published(there: Served, tmp_path: Path) -> None:
    folder = make_tiny_model(tmp_path / "model", seed=3)
    release = published(there.stage, folder, there.version + 1)
    weights = lying_at(there.stage, release) / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(bytes(content))
    reason = there.rolled_back(release)
    assert "storage-initializer" in reason
    assert "ended with exit code 5" in reason
    assert "changed: model.safetensors" in reason
    assert "publish the checkpoint again: penstock run model.yaml" in reason


def test_a_model_that_its_engine_cannot_load(there: Served, tmp_path: Path) -> None:
    folder = make_tiny_model(tmp_path / "model", seed=4)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    release = published(there.stage, folder, there.version + 1)
    with there.otherwise(cpu="400m"):
        reason = there.rolled_back(release, patience_s=ENGINE_S)
    assert "kserve-container" in reason
    assert "ended with exit code 7: " in reason
    assert "transformers cannot load the model: " in reason
    assert "verify the files" in reason


def test_a_runtime_that_was_removed(there: Served) -> None:
    stage = there.stage
    stage.target.cluster.delete("ServingRuntime", CPU)
    try:
        with pytest.raises(ConfigurationError) as problem:
            stage.target.require(stage.spec())
        assert f"no ServingRuntime {CPU} in namespace {stage.namespace}" in str(problem.value)
        assert problem.value.hint == f"kubectl -n {stage.namespace} apply -k deploy/runtimes"
        code, said = penstock("doctor", *stage.options)
        assert code == 2
        assert problem.value.hint in said
        reason = there.rolled_back()  # somebody removed it after the check
        assert f"No ServingRuntimes or ClusterServingRuntimes with the name: {CPU}" in reason
    finally:
        stage.target.cluster.create(cpu_runtime(stage.target.facts))
