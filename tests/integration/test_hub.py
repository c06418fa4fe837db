"""The real Hub client against the mirror."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock.core.errors import (
    AccessDenied,
    DigestMismatch,
    HubUnreachable,
    PolicyRefused,
    RepositoryNotFound,
    RevisionNotFound,
)
from penstock.core.identity import ModelRef
from penstock.core.spec import Policy
from registry.pull import Hub, pull, resolve
from registry.store import Store, verify
from tests.fakes.hub import Network, hub

pytestmark = pytest.mark.integration

_SERVE = (
    "import sys; from pathlib import Path; from registry.mirror import serve; "
    "serve(Path(sys.argv[1]), 0, tokens=frozenset({'open-sesame'}), "
    "on_ready=lambda url: print(url, flush=True))"
)


def _repository(root: Path, name: str, files: dict[str, bytes], **settings: object) -> Path:
    folder = root / "acme" / name
    folder.mkdir(parents=True)
    for path, content in files.items():
        (folder / path).write_bytes(content)
    if settings:
        (folder / ".penstock-hub.json").write_text(json.dumps(settings))
    return folder


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("hub")
    good = {"config.json": b"{}", "model.safetensors": b"w" * 300_000, "tokenizer.json": b"{}"}
    _repository(root, "good", {**good, "pytorch_model.bin": b"p", "train.log": b"x"})
    _repository(root, "gated", good, gated=True)
    _repository(root, "private", good, private=True)
    _repository(root, "pickles", {"config.json": b"{}", "pytorch_model.bin": b"p"})
    _repository(root, "code", {**good, "modeling_acme.py": b"print('hello')"})
    _repository(root, "auto", {**good, "config.json": b'{"auto_map": {"AutoModel": "x.Y"}}'})
    return root


@pytest.fixture(scope="module")
def endpoint(root: Path) -> Iterator[str]:
    server = subprocess.Popen(
        [sys.executable, "-c", _SERVE, str(root)], stdout=subprocess.PIPE, text=True
    )
    assert server.stdout is not None
    yield server.stdout.readline().strip()
    server.terminate()
    server.communicate()


def _pull(
    endpoint: str,
    text: str,
    home: Path,
    token: str | None = None,
    policy: Policy = Policy(),  # noqa: B008 - frozen
) -> Path:
    source, store = Hub(endpoint, token), Store(home / "store")
    ref = resolve(ModelRef.parse(text), source)
    assert ref.pinned
    pulled = pull(ref, source, store, policy, lambda _done, _total: None)
    folder = store.checkpoint(pulled.manifest.root)
    verify(folder, pulled.manifest)
    return folder


def test_pulls_what_serving_needs_and_only_once(endpoint: str, tmp_path: Path) -> None:
    folder = _pull(endpoint, "hf://acme/good", tmp_path)
    assert sorted(p.name for p in folder.iterdir()) == [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    ]
    source, store = Hub(endpoint), Store(tmp_path / "store")
    ref = resolve(ModelRef.parse("hf://acme/good@main"), source)
    again = pull(ref, source, store, Policy(), lambda _done, _total: None)
    assert again.downloaded_bytes == 0


def test_progress_counts_every_byte_once(endpoint: str, tmp_path: Path) -> None:
    source, seen = Hub(endpoint), []
    ref = resolve(ModelRef.parse("hf://acme/good"), source)
    pull(ref, source, Store(tmp_path), Policy(), lambda done, total: seen.append((done, total)))
    assert seen == sorted(seen)
    assert len(seen) > len({"config.json", "model.safetensors", "tokenizer.json"})
    assert seen[-1][0] == seen[-1][1]


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A repository whose weights are larger than what the client writes at once."""
    _repository(tmp_path / "hub", "large", {"config.json": b"{}", "tokenizer.json": b"{}"})
    with (tmp_path / "hub/acme/large/model.safetensors").open("wb") as file:
        for number in range(24):
            file.write(number.to_bytes(1, "big") * (1 << 20))
    return tmp_path / "hub"


def test_a_broken_download_is_resumed(large: Path, tmp_path: Path) -> None:
    network, store = Network(), Store(tmp_path / "store")
    with hub(large, network) as url:
        ref = resolve(ModelRef.parse("hf://acme/large"), Hub(url))
        network.fault = "cut"
        with pytest.raises(HubUnreachable) as lost:
            pull(ref, Hub(url), store, Policy(), lambda _done, _total: None)
        assert "a pull resumes" in lost.value.hint
        assert store.roots() == []
        network.fault, network.ranges = "", []
        seen: list[int] = []
        pulled = pull(ref, Hub(url), store, Policy(), lambda done, _total: seen.append(done))
    (asked,) = network.ranges
    assert int(asked.removeprefix("bytes=").removesuffix("-")) >= 10 << 20
    assert seen[0] >= 10 << 20
    verify(store.checkpoint(pulled.manifest.root), pulled.manifest)


def test_weights_altered_on_the_way_are_refused(large: Path, tmp_path: Path) -> None:
    network, store = Network(), Store(tmp_path / "store")
    with hub(large, network) as url:
        ref = resolve(ModelRef.parse("hf://acme/large"), Hub(url))
        network.fault = "altered"
        with pytest.raises(DigestMismatch, match=r"altered on the way: model\.safetensors"):
            pull(ref, Hub(url), store, Policy(), lambda _done, _total: None)
        assert store.roots() == []
        network.fault = ""
        pulled = pull(ref, Hub(url), store, Policy(), lambda _done, _total: None)
    verify(store.checkpoint(pulled.manifest.root), pulled.manifest)


def test_a_config_that_asks_for_code_is_refused_before_the_weights(
    endpoint: str, tmp_path: Path
) -> None:
    with pytest.raises(PolicyRefused, match="auto_map"):
        _pull(endpoint, "hf://acme/auto", tmp_path)
    assert {p.name for p in tmp_path.rglob("*.*") if p.is_file()} & {"model.safetensors"} == set()


def test_a_damaged_checkpoint_is_pulled_again(endpoint: str, tmp_path: Path) -> None:
    folder = _pull(endpoint, "hf://acme/good", tmp_path)
    (folder / "model.safetensors").unlink()
    assert (_pull(endpoint, "hf://acme/good", tmp_path) / "model.safetensors").exists()
    before = (folder / "config.json").read_bytes()
    (folder / "config.json").chmod(0o644)
    (folder / "config.json").write_bytes(before[::-1])  # the object behind it changes too
    assert (_pull(endpoint, "hf://acme/good", tmp_path) / "config.json").read_bytes() == before


def test_gated_and_private_repositories_need_a_token(endpoint: str, tmp_path: Path) -> None:
    with pytest.raises(AccessDenied, match="gated") as refused:
        _pull(endpoint, "hf://acme/gated", tmp_path)
    assert "HF_TOKEN" in refused.value.hint
    with pytest.raises(AccessDenied, match="this token does not open it"):
        _pull(endpoint, "hf://acme/gated", tmp_path, token="wrong")
    with pytest.raises(RepositoryNotFound):
        _pull(endpoint, "hf://acme/private", tmp_path)
    for name in ("gated", "private"):
        assert _pull(endpoint, f"hf://acme/{name}", tmp_path, token="open-sesame").is_dir()


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("hf://acme/absent", RepositoryNotFound),
        ("hf://acme/good@v9", RevisionNotFound),
        ("hf://acme/pickles", PolicyRefused),
        ("hf://acme/code", PolicyRefused),
        ("hf://acme/auto", PolicyRefused),
    ],
)
def test_refusals_leave_nothing_in_the_store(
    endpoint: str, tmp_path: Path, text: str, error: type[Exception]
) -> None:
    with pytest.raises(error):
        _pull(endpoint, text, tmp_path)
    assert Store(tmp_path / "store").roots() == []


def test_policy_lets_code_in_as_files(endpoint: str, tmp_path: Path) -> None:
    folder = _pull(endpoint, "hf://acme/code", tmp_path, policy=Policy(allow_remote_code=True))
    assert (folder / "modeling_acme.py").exists()


def test_a_changed_file_is_noticed(endpoint: str, tmp_path: Path) -> None:
    folder = _pull(endpoint, "hf://acme/good", tmp_path)
    manifest = Store(tmp_path / "store").manifest(Store(tmp_path / "store").roots()[0])
    (folder / "config.json").unlink()
    (folder / "config.json").write_bytes(b"[]")
    (folder / "new.txt").write_text("")
    with pytest.raises(DigestMismatch, match=r"changed: config.json; extra: new.txt"):
        verify(folder, manifest)


def test_an_absent_hub_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    with pytest.raises(HubUnreachable, match=str(port)):
        _pull(f"http://127.0.0.1:{port}", "hf://acme/good", tmp_path)
