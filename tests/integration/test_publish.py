"""Publishing to a server that speaks S3, and KServe's own library fetching from there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from penstock.core.errors import DigestMismatch, StoreError
from penstock.core.identity import Digest, ModelRef
from penstock.core.manifest import Manifest
from registry.bring import bring, fetch_with_kserve
from registry.publish import publish
from registry.published import MANIFEST
from registry.s3 import Bucket, S3Access, client
from registry.store import manifest_of
from tests.fakes.hub import Network, hub

pytestmark = [
    pytest.mark.integration,
    # moto's and KServe's own
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning"),
]
pytest.importorskip("boto3", reason="extra cluster: pip install 'penstock[cluster]'")
moto = pytest.importorskip("moto.server", reason="a server that speaks S3: moto[server]")

PLACE = "s3://models/chat"
_5_MIB = 5 << 20  # S3's smallest part


@pytest.fixture(scope="module")
def access() -> Iterator[S3Access]:
    """A server of S3's protocol on 127.0.0.1."""
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield S3Access(f"http://{host}:{port}", "us-east-1", "key", "secret")
    server.stop()


@pytest.fixture
def s3(access: S3Access) -> Iterator[Any]:
    """A client, and an empty bucket that keeps every version of an object."""
    found = client(access)
    found.create_bucket(Bucket="models")
    found.put_bucket_versioning(Bucket="models", VersioningConfiguration={"Status": "Enabled"})
    yield found
    for version in found.list_object_versions(Bucket="models").get("Versions", []):
        found.delete_object(Bucket="models", Key=version["Key"], VersionId=version["VersionId"])
    found.delete_bucket(Bucket="models")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkpoint."""
    path = tmp_path / "checkpoint"
    (path / "sub").mkdir(parents=True)
    (path / "config.json").write_text("{}")
    (path / "model.safetensors").write_bytes(b"w" * 50_000)
    (path / "sub" / "empty.txt").touch()
    return path


@pytest.fixture
def manifest(folder: Path) -> Manifest:
    """The checkpoint's manifest."""
    return manifest_of(folder, ModelRef.parse("hf://org/m@main"))


def sent(s3: Any) -> Counter[str]:
    """Return how often each object was written."""
    versions = s3.list_object_versions(Bucket="models").get("Versions", [])
    return Counter(version["Key"].rpartition("/")[2] for version in versions)


def test_it_is_sent_once_and_its_manifest_last(
    s3: Any, access: S3Access, folder: Path, manifest: Manifest
) -> None:
    told: list[tuple[int, int]] = []
    uri = publish(folder, manifest, PLACE, access, lambda *now: told.append(now))
    assert uri == f"{PLACE}/{manifest.root.hex}"
    assert told == sorted(told)
    assert told[-1] == (manifest.size_bytes, manifest.size_bytes)
    assert publish(folder, manifest, PLACE, access) == uri
    names = {"config.json", "model.safetensors", "empty.txt", MANIFEST}
    assert sent(s3) == dict.fromkeys(names, 1)
    head = s3.head_object(
        Bucket="models", Key=f"chat/{manifest.root.hex}/config.json", ChecksumMode="ENABLED"
    )
    (config,) = [entry for entry in manifest.files if entry.path == "config.json"]
    assert head["Metadata"] == {"penstock-sha256": config.digest.hex}


def test_what_broke_off_is_resumed_and_was_not_there(
    s3: Any, access: S3Access, folder: Path, manifest: Manifest
) -> None:
    good = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(good[:-1] + b"x")
    with pytest.raises(DigestMismatch, match=r"model\.safetensors"):
        publish(folder, manifest, PLACE, access)
    assert MANIFEST not in sent(s3)
    (folder / "model.safetensors").write_bytes(good)
    publish(folder, manifest, PLACE, access)
    assert sent(s3)["config.json"] == 1
    assert sent(s3)[MANIFEST] == 1


def test_an_object_that_expired_is_sent_again(
    s3: Any, access: S3Access, folder: Path, manifest: Manifest
) -> None:
    publish(folder, manifest, PLACE, access)
    key = f"chat/{manifest.root.hex}/config.json"
    (gone,) = s3.list_object_versions(Bucket="models", Prefix=key)["Versions"]
    s3.delete_object(Bucket="models", Key=key, VersionId=gone["VersionId"])
    publish(folder, manifest, PLACE, access)
    assert sent(s3) == dict.fromkeys(sent(s3), 1) | {MANIFEST: 2}
    assert s3.head_object(Bucket="models", Key=key)["ContentLength"] == 2


def test_a_large_file_is_resumed_part_by_part(s3: Any, access: S3Access, tmp_path: Path) -> None:
    folder = tmp_path / "large"
    folder.mkdir()
    content = bytes(range(256)) * 44_000  # three parts, the last a small one
    (folder / "w.safetensors").write_bytes(content)
    manifest = manifest_of(folder, ModelRef.parse("hf://org/m@main"))
    key = f"chat/{manifest.root.hex}/w.safetensors"
    place = Bucket(s3, "models", "chat", part_bytes=_5_MIB)
    calls: Counter[str] = Counter()

    def broken(model: Any, **_: Any) -> None:
        calls[model.name] += 1
        if model.name == "UploadPart" and calls["UploadPart"] == 2:
            raise ConnectionError("the network went away")

    s3.meta.events.register("before-call.s3", broken)
    with pytest.raises(ConnectionError):
        place.put(folder, manifest, lambda *_: None)
    assert not place.has(manifest)
    place.put(folder, manifest, lambda *_: None)
    s3.meta.events.unregister("before-call.s3", broken)
    assert calls["CreateMultipartUpload"] == 1, "the first attempt goes on"
    assert calls["UploadPart"] == 2 + 2, "its part is not sent again"
    assert s3.get_object(Bucket="models", Key=key)["Body"].read() == content
    assert place.has(manifest)


def test_a_bucket_that_is_not_there_is_named(
    access: S3Access, folder: Path, manifest: Manifest
) -> None:
    with pytest.raises(StoreError, match=r"s3://absent/.*NoSuchBucket"):
        publish(folder, manifest, "s3://absent", access)


def test_a_server_that_is_not_there_is_named(folder: Path, manifest: Manifest) -> None:
    nobody = S3Access("http://127.0.0.1:9", "us-east-1", "key", "secret")
    with pytest.raises(StoreError, match=r"s3://models/chat/.*cannot be reached"):
        publish(folder, manifest, PLACE, nobody)


def _brought(endpoint: str, root: Digest, into: Path) -> subprocess.CompletedProcess[str]:
    """Run the pod's process; the Hub's client reads its variables when it is imported."""
    env = {
        "HF_ENDPOINT": endpoint,
        "HOME": str(into.parent),
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    command = [sys.executable, "-m", "registry.bring", f"--root={root}", "hf://org/m:main"]
    return subprocess.run(
        [*command, str(into)], env=env, capture_output=True, text=True, check=False, timeout=120
    )


class TestWithKServesLibrary:
    """What runs in a pod, but for the pod."""

    @pytest.fixture(autouse=True)
    def _as_in_a_pod(self, access: S3Access, monkeypatch: pytest.MonkeyPatch) -> None:
        pytest.importorskip("kserve_storage", reason="KServe's library: kserve-storage")
        monkeypatch.setenv("AWS_ENDPOINT_URL", access.endpoint)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", access.access_key)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", access.secret_key)
        monkeypatch.setenv("AWS_DEFAULT_REGION", access.region)

    @pytest.mark.parametrize("listed", [False, True])
    def test_what_was_published_arrives(
        self,
        s3: Any,
        access: S3Access,
        folder: Path,
        manifest: Manifest,
        tmp_path: Path,
        listed: bool,
    ) -> None:
        uri = publish(folder, manifest, PLACE, access)
        into = tmp_path / "models"
        given = manifest if listed else None
        assert bring(uri, into, manifest.root, given, fetch=fetch_with_kserve) == manifest
        assert (into / "sub" / "empty.txt").exists(), "which the library leaves out"

    def test_a_byte_that_was_changed_in_the_bucket_is_found(
        self, s3: Any, access: S3Access, folder: Path, manifest: Manifest, tmp_path: Path
    ) -> None:
        uri = publish(folder, manifest, PLACE, access)
        key = f"chat/{manifest.root.hex}/model.safetensors"
        s3.put_object(Bucket="models", Key=key, Body=b"w" * 49_999 + b"x")
        with pytest.raises(DigestMismatch, match=r"changed: model\.safetensors"):
            bring(uri, tmp_path / "models", manifest.root, fetch=fetch_with_kserve)

    def test_the_process_brings_a_repository_of_the_hub(self, folder: Path, tmp_path: Path) -> None:
        repository = tmp_path / "hub" / "org" / "m"
        shutil.copytree(folder, repository)
        shutil.rmtree(repository / "sub")
        (repository / ".gitattributes").write_text("the mirror leaves this out")
        (repository / "pytorch_model.bin").write_bytes(b"nothing that is served")
        served = tmp_path / "served"
        shutil.copytree(folder, served, ignore=shutil.ignore_patterns("sub"))
        root = manifest_of(served, ModelRef.parse("hf://org/m@main")).root
        with hub(tmp_path / "hub", Network()) as url:
            first = _brought(url, root, tmp_path / "first")
            assert first.returncode == 0, first.stderr
            (repository / "model.safetensors").write_bytes(b"w" * 49_999 + b"x")
            second = _brought(url, root, tmp_path / "second")
        assert "verified 2 files" in first.stdout
        assert second.returncode == 5
        assert f"not {root}" in second.stderr
        assert "50000 model.safetensors" in second.stderr

    def test_what_is_not_there_is_named(self, s3: Any, tmp_path: Path, manifest: Manifest) -> None:
        shutil.rmtree(tmp_path / "models", ignore_errors=True)
        with pytest.raises(StoreError, match="s3://models/nothing"):
            bring("s3://models/nothing", tmp_path, manifest.root, fetch=fetch_with_kserve)
