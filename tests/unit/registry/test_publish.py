"""Publishing to a folder: whole or not at all, and nothing twice."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from pydantic import ValidationError

from penstock.core.errors import ConfigurationError, DigestMismatch
from penstock.core.identity import ModelRef
from penstock.core.manifest import Manifest
from penstock.core.spec import KServe
from registry.bring import bring
from registry.publish import publish
from registry.published import MANIFEST
from registry.s3 import S3Access
from registry.store import manifest_of
from tests.unit.registry.test_bring import nobody


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkpoint."""
    path = tmp_path / "checkpoint"
    (path / "sub").mkdir(parents=True)
    (path / "config.json").write_text("{}")
    (path / "model.safetensors").write_bytes(b"w" * 5000)
    (path / "sub" / "empty.txt").touch()
    return path


@pytest.fixture
def manifest(folder: Path) -> Manifest:
    """The checkpoint's manifest."""
    return manifest_of(folder, ModelRef.parse("hf://org/m@main"))


def _there(place: Path) -> list[str]:
    """Return what lies in a place, but for the locks."""
    return [path.name for path in place.iterdir() if not path.name.startswith(".lock-")]


def test_it_is_named_by_its_root_and_can_be_brought(
    folder: Path, manifest: Manifest, tmp_path: Path
) -> None:
    told: list[tuple[int, int]] = []
    place = tmp_path / "claim"
    uri = publish(
        folder, manifest, f"pvc://weights/chat={place}", on_progress=lambda *n: told.append(n)
    )
    assert uri == f"pvc://weights/chat/{manifest.root.hex}"
    there = place / "chat" / manifest.root.hex
    assert bring(uri, there, manifest.root, fetch=nobody) == manifest
    assert told == sorted(told)
    assert told[-1] == (manifest.size_bytes, manifest.size_bytes)
    assert there.stat().st_mode & 0o005 == 0o005, "pods run as another user"


def test_what_is_there_is_not_copied_again(
    folder: Path, manifest: Manifest, tmp_path: Path
) -> None:
    uri = f"file://{tmp_path}/place"
    publish(folder, manifest, uri)
    shutil.rmtree(folder)
    assert publish(folder, manifest, uri) == f"{uri}/{manifest.root.hex}"


@pytest.mark.parametrize("name", ["model.safetensors", MANIFEST])
def test_what_is_damaged_is_replaced(
    folder: Path, manifest: Manifest, tmp_path: Path, name: str
) -> None:
    place = tmp_path / "place"
    publish(folder, manifest, f"file://{place}")
    (place / manifest.root.hex / name).write_bytes(b"damaged")
    publish(folder, manifest, f"file://{place}")
    bring("pvc://x/y", place / manifest.root.hex, manifest.root, fetch=nobody)
    assert _there(place) == [manifest.root.hex], "nothing is left over"


def test_a_folder_that_is_not_the_manifests_is_not_published(
    folder: Path, manifest: Manifest, tmp_path: Path
) -> None:
    (folder / "config.json").write_text("[]")
    with pytest.raises(DigestMismatch, match=r"config\.json"):
        publish(folder, manifest, f"file://{tmp_path}/place")
    assert _there(tmp_path / "place") == []


def test_what_a_killed_publisher_left_goes_with_the_next(
    folder: Path, manifest: Manifest, tmp_path: Path
) -> None:
    place = tmp_path / "place"
    (left := place / f".new-{manifest.root.hex}").mkdir(parents=True)
    (left / "half.safetensors").write_bytes(b"half of it")
    publish(folder, manifest, f"file://{place}")
    assert _there(place) == [manifest.root.hex]
    bring("pvc://x/y", place / manifest.root.hex, manifest.root, fetch=nobody)


def test_of_two_publishers_one_copies_and_nothing_is_taken_away(
    folder: Path, manifest: Manifest, tmp_path: Path
) -> None:
    """An engine may read from what the first one has brought by then."""
    place = tmp_path / "place"
    with ThreadPoolExecutor(4) as pool:
        uris = list(pool.map(lambda _: publish(folder, manifest, f"file://{place}"), range(4)))
    assert set(uris) == {f"file://{place}/{manifest.root.hex}"}
    before = (place / manifest.root.hex).stat().st_ino
    publish(folder, manifest, f"file://{place}")
    assert (place / manifest.root.hex).stat().st_ino == before
    assert _there(place) == [manifest.root.hex]


@pytest.mark.parametrize(
    "uri", ["", "/folder", "s3://", "file://relative", "pvc://claim", "pvc://claim=relative"]
)
def test_a_place_that_is_none_is_refused(folder: Path, manifest: Manifest, uri: str) -> None:
    with pytest.raises(ConfigurationError, match="allowed"):
        publish(folder, manifest, uri)


def test_keys_are_not_printed() -> None:
    access = S3Access("http://s3.test", "eu-1", "the-key", "the-secret")
    assert "the-" not in repr(access)
    assert "http://s3.test" in repr(access)


def test_the_claim_that_a_spec_names_is_one_that_can_be_published_to(
    folder: Path, manifest: Manifest, tmp_path: Path
) -> None:
    where = KServe.model_validate({"storage": f"pvc://weights/chat={tmp_path / 'claim'}"})
    assert where.storage is not None
    assert publish(folder, manifest, where.storage) == f"pvc://weights/chat/{manifest.root.hex}"
    with pytest.raises(ValidationError, match="storage"):
        KServe.model_validate({"storage": "pvc://weights/chat"})
