"""A pod's files: fetched by whatever fetches, and served only if they are the recorded ones."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from fnmatch import fnmatch
from pathlib import Path

import pytest

from penstock.core.errors import DigestMismatch, StoreError
from penstock.core.identity import Digest, ModelRef
from penstock.core.manifest import Manifest
from registry.bring import Fetch, bring, main
from registry.published import MANIFEST
from registry.store import manifest_of

SOURCE = ModelRef.parse("hf://org/m@main")
FILES = {
    "config.json": b"{}",
    "model-00001.safetensors": b"a" * 1000,
    "model-00002.safetensors": b"b" * 1000,
    "added_tokens.json": b"",
}


@pytest.fixture
def published(tmp_path: Path) -> tuple[Path, Manifest]:
    """A checkpoint as `registry.publish` leaves it."""
    folder = tmp_path / "published"
    folder.mkdir()
    for name, content in FILES.items():
        (folder / name).write_bytes(content)
    manifest = manifest_of(folder, SOURCE)
    (folder / MANIFEST).write_text(manifest.to_json())
    return folder, manifest


def fetching(origin: Path, *, empty: bool = True) -> Fetch:
    """Return what copies a folder, as KServe's library does; from S3 without empty files."""

    def fetch(_source: str, folder: Path, patterns: Sequence[str]) -> None:
        for path in origin.rglob("*"):
            name = path.relative_to(origin).as_posix()
            wanted = not patterns or any(fnmatch(name, pattern) for pattern in patterns)
            if path.is_file() and wanted and (empty or path.stat().st_size):
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, folder / name)

    return fetch


def nobody(_source: str, _folder: Path, _patterns: Sequence[str]) -> None:
    raise AssertionError("nothing is to be fetched")


@pytest.fixture
def into(tmp_path: Path) -> Path:
    """Where the engine looks for files."""
    folder = tmp_path / "models"
    folder.mkdir()
    return folder


def test_what_was_published_arrives(published: tuple[Path, Manifest], into: Path) -> None:
    folder, manifest = published
    fetch = fetching(folder, empty=False)
    assert bring(f"s3://b/{manifest.root.hex}", into, manifest.root, fetch=fetch) == manifest
    assert {name: (into / name).read_bytes() for name in FILES} == FILES


def test_a_mounted_claim_is_verified_where_it_is(published: tuple[Path, Manifest]) -> None:
    folder, manifest = published
    assert bring("pvc://c/p", folder, manifest.root, fetch=nobody) == manifest
    (folder / "config.json").write_bytes(b"[]")
    with pytest.raises(DigestMismatch, match=r"changed: config\.json"):
        bring("pvc://c/p", folder, manifest.root, fetch=nobody)


def test_an_empty_mount_is_another_place_than_was_published_to(
    published: tuple[Path, Manifest], tmp_path: Path
) -> None:
    (elsewhere := tmp_path / "elsewhere").mkdir()
    with pytest.raises(StoreError, match="pvc://c/p: nothing lies there") as problem:
        bring("pvc://c/p", elsewhere, published[1].root, published[1], fetch=nobody)
    assert "target.kserve.storage" in problem.value.hint


def _flip(folder: Path) -> None:
    path = folder / "model-00002.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"c")


def _truncate(folder: Path) -> None:
    (folder / "model-00001.safetensors").write_bytes(b"a" * 999)


def _remove(folder: Path) -> None:
    (folder / "model-00001.safetensors").unlink()


def _add(folder: Path) -> None:
    (folder / "modeling_x.py").write_text("import os")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (_flip, "changed: model-00002.safetensors"),
        (_truncate, "changed: model-00001.safetensors"),
        (_remove, "missing: model-00001.safetensors"),
        (_add, "extra: modeling_x.py"),
    ],
)
@pytest.mark.parametrize("listed", [False, True], ids=["published manifest", "given manifest"])
def test_what_is_wrong_is_named(
    published: tuple[Path, Manifest],
    into: Path,
    damage: Callable[[Path], None],
    said: str,
    listed: bool,
) -> None:
    folder, manifest = published
    damage(folder)
    given = manifest if listed else None
    if listed and damage is _add:  # only what is listed is fetched
        bring("s3://b/p", into, manifest.root, given, fetch=fetching(folder))
        assert not (into / "modeling_x.py").exists()
        return
    with pytest.raises(DigestMismatch, match=said) as refused:
        bring("s3://b/p", into, manifest.root, given, fetch=fetching(folder))
    assert "s3://b/p" in str(refused.value)
    assert "publish" in refused.value.hint


@pytest.mark.parametrize("listed", [False, True], ids=["published manifest", "given manifest"])
def test_a_killed_download_does_not_keep_the_next_one_from_serving(
    published: tuple[Path, Manifest], into: Path, listed: bool
) -> None:
    """S3's client writes beside the file, under a name that it chooses."""
    folder, manifest = published
    (into / "model-00002.safetensors.6eF3a2B1").write_bytes(b"b" * 400)
    (into / "sub").mkdir()
    (into / "sub" / "model-00001.safetensors.0A").write_bytes(b"a")
    given = manifest if listed else None
    assert bring("s3://b/p", into, manifest.root, given, fetch=fetching(folder)) == manifest
    assert {path.name for path in into.rglob("*") if path.is_file()} - {MANIFEST} == FILES.keys()


def test_what_is_whole_is_not_fetched_again(published: tuple[Path, Manifest], into: Path) -> None:
    """A pod that starts again after a node did has its files, and the store may be down."""
    folder, manifest = published
    bring("s3://b/p", into, manifest.root, manifest, fetch=fetching(folder, empty=False))
    assert bring("s3://b/p", into, manifest.root, manifest, fetch=nobody) == manifest
    _flip(into)
    _truncate(into)
    asked: list[str] = []

    def fetch(source: str, target: Path, patterns: Sequence[str]) -> None:
        asked.extend(patterns)
        fetching(folder)(source, target, patterns)

    assert bring("s3://b/p", into, manifest.root, manifest, fetch=fetch) == manifest
    assert asked == ["model-00001.safetensors", "model-00002.safetensors", MANIFEST]


def test_another_checkpoints_manifest_does_not_vouch(
    published: tuple[Path, Manifest], into: Path
) -> None:
    folder, _manifest = published
    other = Digest.of(b"another checkpoint")
    with pytest.raises(DigestMismatch, match="lists the checkpoint"):
        bring("s3://b/p", into, other, fetch=fetching(folder))


def test_the_hub_needs_no_manifest(published: tuple[Path, Manifest], into: Path) -> None:
    folder, manifest = published
    (folder / MANIFEST).unlink()
    (folder / ".gitattributes").write_text("not served")
    (folder / "original").mkdir()
    (folder / "original" / "w.safetensors").write_bytes(b"not served")
    (folder / ".cache" / "huggingface").mkdir(parents=True)
    (folder / ".cache" / "huggingface" / "x.safetensors").write_text("the client's notes")
    bring("hf://org/m:main", into, manifest.root, fetch=fetching(folder))
    assert {path.name for path in into.iterdir()} == FILES.keys()
    _flip(folder)
    with pytest.raises(DigestMismatch) as refused:
        bring("hf://org/m:main", into, manifest.root, fetch=fetching(folder))
    changed = Digest.of((folder / "model-00002.safetensors").read_bytes())
    assert f"{changed} 1000 model-00002.safetensors" in str(refused.value)


def test_a_name_that_looks_like_a_pattern_is_taken_literally(tmp_path: Path, into: Path) -> None:
    origin = tmp_path / "origin"
    origin.mkdir()
    (origin / "a[1].safetensors").write_bytes(b"1")
    manifest = manifest_of(origin, SOURCE)
    (origin / "a1.safetensors").write_bytes(b"2")
    bring("s3://b/p", into, manifest.root, manifest, fetch=fetching(origin))
    assert [path.name for path in into.iterdir()] == ["a[1].safetensors"]


def test_the_process_says_what_it_verified(
    published: tuple[Path, Manifest], into: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, manifest = published
    options = [f"--root={manifest.root}", f"--manifest={manifest.to_json()}"]
    assert main([*options, "s3://b/p", str(into)], fetching(folder)) == 0
    assert f"verified 4 files, 2002 bytes: {manifest.root}" in capsys.readouterr().out


def test_the_process_says_last_what_is_wrong(
    published: tuple[Path, Manifest], into: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, manifest = published
    _flip(folder)
    assert main([f"--root={manifest.root}", "s3://b/p", str(into)], fetching(folder)) == 5
    assert "changed: model-00002.safetensors" in capsys.readouterr().err


def test_a_place_that_does_not_answer_is_no_success(
    into: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def fetch(_source: str, _folder: Path, _patterns: Sequence[str]) -> None:
        raise StoreError("s3://b/p: cannot be fetched: refused")

    assert main([f"--root={Digest.of(b'')}", "s3://b/p", str(into)], fetch) == 5
    assert "cannot be fetched" in capsys.readouterr().err


def test_verifying_needs_only_the_standard_library(published: tuple[Path, Manifest]) -> None:
    folder, manifest = published
    code = (
        "import sys\n"
        f"sys.argv = ['bring', '--root={manifest.root}', 'pvc://c/p', {str(folder)!r}]\n"
        "from registry.bring import main\n"
        "assert main() == 0\n"
        "print(sorted({m.partition('.')[0] for m in sys.modules} - sys.stdlib_module_names))\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    names = ran.stdout.splitlines()[-1]
    assert "pydantic" not in names
    assert "kserve_storage" not in names
