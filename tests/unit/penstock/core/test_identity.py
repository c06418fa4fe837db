import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.errors import ConfigurationError
from penstock.core.identity import Digest, ModelRef
from penstock.core.manifest import FileEntry, Manifest

DIGESTS = st.binary(min_size=32, max_size=32).map(lambda raw: Digest("sha256", raw.hex()))
WORDS = st.from_regex(r"[A-Za-z0-9][\w.-]{0,20}", fullmatch=True)
REFS = st.one_of(
    st.builds(
        lambda org, name, revision: ModelRef("hf", f"{org}/{name}", revision),
        WORDS,
        WORDS,
        st.one_of(st.just(""), st.just("main"), st.just("a" * 40), st.just("refs/pr/1")),
    ),
    WORDS.map(lambda p: ModelRef("file", f"/{p}")),
    WORDS.map(lambda p: ModelRef("models", f"/{p}", "champion")),
    st.builds(lambda b, p: ModelRef("s3", f"{b}/{p}"), WORDS, WORDS),
    st.builds(lambda c, p: ModelRef("pvc", f"{c}/{p}"), WORDS, WORDS),
)
ENTRIES = st.builds(FileEntry, WORDS, st.integers(0, 2**40), DIGESTS)


@given(DIGESTS)
def test_digest_round_trip(digest: Digest) -> None:
    assert Digest.parse(str(digest)) == digest


@given(REFS)
def test_reference_round_trip(ref: ModelRef) -> None:
    assert ModelRef.parse(str(ref)) == ref


@given(REFS, st.lists(ENTRIES, unique_by=lambda e: e.path))
def test_manifest_round_trip(source: ModelRef, files: list[FileEntry]) -> None:
    manifest = Manifest(source, tuple(sorted(files)))
    assert Manifest.from_json(manifest.to_json()) == manifest


@pytest.mark.parametrize("text", ["", "sha256:12", "md5:" + "a" * 64, "sha256:" + "g" * 64])
def test_not_a_digest(text: str) -> None:
    with pytest.raises(ConfigurationError, match="not a sha256 digest"):
        Digest.parse(text)


@pytest.mark.parametrize("text", ["", "org/name", "hf://name", "file://x", "hf://a/b@", "s3:b/p"])
def test_not_a_reference_names_the_forms(text: str) -> None:
    with pytest.raises(ConfigurationError, match="hf://ORG/NAME@REVISION"):
        ModelRef.parse(text)


def test_only_a_commit_is_pinned() -> None:
    ref = ModelRef.parse("hf://org/name")
    assert not ref.at("main").pinned
    assert ref.at("0" * 40).pinned


def test_root_depends_on_bytes_not_on_the_source() -> None:
    entry = FileEntry("config.json", 2, Digest.of(b"{}"))
    here = Manifest(ModelRef.parse("file:///models/x"), (entry,))
    there = Manifest(ModelRef.parse("hf://org/name"), (entry,))
    changed = Manifest(here.source, (FileEntry("config.json", 2, Digest.of(b"[]")),))
    assert here.root == there.root
    assert here.root != changed.root


def test_edited_manifest_contradicts_itself() -> None:
    entry = FileEntry("config.json", 2, Digest.of(b"{}"))
    text = Manifest(ModelRef.parse("file:///models/x"), (entry,)).to_json()
    with pytest.raises(ConfigurationError, match="contradicts itself"):
        Manifest.from_json(text.replace('"size_bytes": 2', '"size_bytes": 3'))
