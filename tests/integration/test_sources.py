"""Data sets from S3, from a mounted claim, from a Hub; and each of them gone."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer

from penstock.core.errors import ConfigurationError, RepositoryNotFound, RevisionNotFound
from penstock.core.settings import Settings
from penstock.core.sources import DataRef
from registry.sources.fetch import Fetched, fetched
from tests.fakes.hub import Network, hub

pytestmark = pytest.mark.integration

ROWS = b'{"id": "1", "messages": [{"role": "user", "content": "hi"}], "answer": "x"}\n'
DIGEST = f"sha256:{hashlib.sha256(ROWS).hexdigest()}"


def _fetch(text: str, settings: Settings) -> Fetched:
    return fetched("data.train", DataRef.parse(text), settings, {})


@pytest.fixture(scope="module")
def store() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")


def test_an_object_of_s3(tmp_path: Path, store: str, keys: None) -> None:
    client = boto3.client("s3", endpoint_url=store, region_name="us-east-1")
    client.create_bucket(Bucket="sets")
    client.put_object(Bucket="sets", Key="a/train.jsonl", Body=ROWS)
    settings = Settings(home=tmp_path, s3_endpoint=store, s3_region="us-east-1")
    found = _fetch("s3://sets/a/train.jsonl", settings)
    assert (found.path.read_bytes(), str(found.digest)) == (ROWS, DIGEST)
    client.delete_object(Bucket="sets", Key="a/train.jsonl")
    for text in ("s3://sets/a/train.jsonl", "s3://gone/train.jsonl"):
        with pytest.raises(ConfigurationError, match=f"data.train: {text}: no such object"):
            _fetch(text, settings)


def test_a_file_and_a_claim(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home")
    path = tmp_path / "claim/sets/train.jsonl"
    path.parent.mkdir(parents=True)
    path.write_bytes(ROWS)
    for text in (str(path), f"pvc://claim/sets/train.jsonl={tmp_path}/claim"):
        assert str(_fetch(text, settings).digest) == DIGEST
    path.unlink()
    for text in (str(path), f"pvc://claim/sets/train.jsonl={tmp_path}/claim"):
        with pytest.raises(ConfigurationError, match=r"no such file") as problem:
            _fetch(text, settings)
        assert "it was there before" in problem.value.hint
    with pytest.raises(ConfigurationError, match=r"claim other is not mounted"):
        _fetch(f"pvc://other/train.jsonl={tmp_path}/other", settings)


def test_a_revision_of_the_hub(tmp_path: Path) -> None:
    folder = tmp_path / "hub/datasets/acme/rows"
    folder.mkdir(parents=True)
    (folder / "train.jsonl").write_bytes(ROWS)
    (folder / "README.md").write_text("rows")
    with hub(tmp_path / "hub", Network()) as url:
        settings = Settings(home=tmp_path / "home", hub_endpoint=url)
        found = _fetch("hf://datasets/acme/rows", settings)
        assert (found.path.read_bytes(), str(found.digest)) == (ROWS, DIGEST)
        assert DataRef.parse(found.source).revision != ""  # pinned to a commit
        assert _fetch(found.source, settings).digest == found.digest
        with pytest.raises(RevisionNotFound, match=r"data.train: data set"):
            _fetch("hf://datasets/acme/rows@v9", settings)
        with pytest.raises(RepositoryNotFound, match=r"data.train: data set"):
            _fetch("hf://datasets/acme/gone", settings)
        with pytest.raises(ConfigurationError, match=r"there are: README.md, train.jsonl"):
            _fetch("hf://datasets/acme/rows/other.jsonl", settings)
        (folder / "more.jsonl").write_bytes(ROWS * 2)
        with pytest.raises(ConfigurationError, match="2 files"):
            _fetch("hf://datasets/acme/rows", settings)
        assert str(_fetch("hf://datasets/acme/rows/train.jsonl", settings).digest) == DIGEST
