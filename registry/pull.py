"""Brings a checkpoint into the store with the Hub's own client: pinned, resumable, no pickles."""

from __future__ import annotations

import fnmatch
import json
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from penstock.core.errors import (
    AccessDenied,
    ConfigurationError,
    DigestMismatch,
    HubError,
    HubUnreachable,
    PolicyRefused,
    RepositoryNotFound,
    RevisionNotFound,
    StoreError,
    disk_errors,
)
from penstock.core.identity import Digest, ModelRef
from penstock.core.manifest import Manifest
from penstock.core.spec import Policy
from registry.store import Progress, Store, locked, require_space, verify

SERVED = (
    "config.json",
    "generation_config.json",
    "tokenizer*",
    "vocab*",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template*",
    "preprocessor_config.json",
    "hf_quant_config.json",
    "recipe.yaml",
    "*.safetensors",
    "*.safetensors.index.json",
    "README.md",
    "LICENSE*",
)
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.pickle")
_CONFIG = "config.json"
_PARTS = ".parts"
_FILES_AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class Hub:
    """Which Hub, and what opens it."""

    endpoint: str
    token: str | None = None


@dataclass(frozen=True, slots=True)
class Pulled:
    """What a pull brought."""

    manifest: Manifest
    downloaded_bytes: int
    """0 when the store had everything."""


def resolve(ref: ModelRef, hub: Hub) -> ModelRef:
    """Return the reference pinned to a commit; a folder is pinned by its content when pulled."""
    if ref.scheme == "file":
        if not Path(ref.path).is_dir():
            raise ConfigurationError(f"{ref}: no such folder")
        return ref
    if ref.scheme != "hf":
        raise ConfigurationError(f"{ref}: this version pulls hf:// and file:// only")
    with hub_errors(ref, hub):
        info = api(hub).model_info(ref.path, revision=ref.revision or "main")
    return ref.at(str(info.sha))


def pull(ref: ModelRef, hub: Hub, store: Store, policy: Policy, on_progress: Progress) -> Pulled:
    """Bring what serving needs into the store; a pull that broke off is resumed.

    Args:
        ref: Pinned by `resolve`.
        hub: Where to download from.
        store: Where the files go.
        policy: What the checkpoint may contain; refused before its weights are downloaded.
        on_progress: Told (bytes done, bytes in all).
    """
    if ref.scheme == "file":
        names = select(_relative(Path(ref.path)), policy, str(ref))
        return _from_folder(ref, store, names, on_progress)
    known = store.root / "refs" / f"{ref.path.replace('/', '--')}@{ref.revision}"
    incoming = _Incoming(ref, hub, store.root / "incoming" / known.name)
    with locked(incoming.folder.with_name(f"{known.name}.lock")):  # one pull of a commit at a time
        return _known(known, store) or _pull(incoming, known, store, policy, on_progress)


def _known(known: Path, store: Store) -> Pulled | None:
    """Return what an earlier pull brought, if it is all here."""
    root = Digest.parse(known.read_text()) if known.exists() else None
    if root is None or not _complete(store, root):
        return None
    store.touch(root)
    return Pulled(store.manifest(root), 0)


def _pull(
    incoming: _Incoming, known: Path, store: Store, policy: Policy, on_progress: Progress
) -> Pulled:
    promised, downloaded = _bring(incoming, policy, on_progress)
    try:
        manifest = store.add(incoming.folder, incoming.ref, owned=True, promised=promised)
    except DigestMismatch:
        shutil.rmtree(incoming.folder)  # nothing of it can be trusted
        raise
    known.parent.mkdir(parents=True, exist_ok=True)
    known.write_text(str(manifest.root))
    shutil.rmtree(incoming.folder)
    return Pulled(manifest, downloaded)


def _bring(
    incoming: _Incoming, policy: Policy, on_progress: Progress
) -> tuple[dict[str, Digest], int]:
    """Download what serving needs; return the digests the Hub names, and the new bytes."""
    ref, hub = incoming.ref, incoming.hub
    with hub_errors(ref, hub):
        info = api(hub).model_info(ref.path, revision=ref.revision, files_metadata=True)
    files = {s.rfilename: s for s in info.siblings or []}
    chosen = {n: int(files[n].size or 0) for n in select(list(files), policy, str(ref))}
    downloaded = 0
    if _CONFIG in chosen:  # a few bytes, which may refuse all the others
        downloaded = incoming.download({_CONFIG: chosen[_CONFIG]}, _untold)
        _refuse_remote_code(incoming.folder / _CONFIG, policy, str(ref))
    downloaded += incoming.download(chosen, on_progress)
    for ours in (_PARTS, ".cache"):
        shutil.rmtree(incoming.folder / ours, ignore_errors=True)
    promised = {n: Digest("sha256", s.lfs.sha256) for n, s in files.items() if s.lfs}
    return promised, downloaded


def _untold(_done: int, _total: int) -> None:
    """Progress for nobody."""


def select(files: Sequence[str], policy: Policy, where: str) -> list[str]:
    """Return the files serving needs, of those a repository has; refuse what policy forbids."""
    names = sorted(files)
    chosen = [n for n in names if "/" not in n and _matches(n, SERVED)]
    if not any(n.endswith(".safetensors") for n in chosen):
        pickles = [n for n in names if _matches(n, PICKLES)]
        if pickles and not policy.allow_pickle:
            raise PolicyRefused(
                f"{where}: weights only as pickles ({', '.join(pickles[:3])}), which run code "
                "when loaded",
                hint="choose a repository with safetensors, or convert it first",
            )
        if not pickles:
            raise PolicyRefused(
                f"{where}: no weights; allowed: *.safetensors",
                hint="check the repository's name and revision",
            )
        chosen += [n for n in pickles if "/" not in n]
    code = [n for n in names if n.endswith(".py")]
    if code and not policy.allow_remote_code:
        raise PolicyRefused(
            f"{where}: brings code of its own ({', '.join(code[:3])})",
            hint="read it; then set policy.allow_remote_code: true, or choose another repository",
        )
    return sorted({*chosen, *code})


def _from_folder(ref: ModelRef, store: Store, chosen: list[str], on_progress: Progress) -> Pulled:
    import tempfile

    source = Path(ref.path)
    store.root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=store.root) as scratch:
        for name in chosen:  # links only: the store copies what it has not yet
            (Path(scratch) / name).parent.mkdir(parents=True, exist_ok=True)
            (Path(scratch) / name).symlink_to(source / name)
        return Pulled(store.add(Path(scratch), ref, on_progress), 0)


def _relative(folder: Path) -> list[str]:
    return [p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()]


@dataclass(frozen=True, slots=True)
class _Incoming:
    """A repository's files on their way into the store."""

    ref: ModelRef
    hub: Hub
    folder: Path

    def download(self, sizes: Mapping[str, int], on_progress: Progress) -> int:
        """Bring files here, several at once; what is here already stays. Return the new bytes."""
        absent = {n: size for n, size in sizes.items() if not _has(self.folder / n, size)}
        require_space(self.folder, sum(absent.values()))
        total = sum(sizes.values())
        done, lock = total - sum(absent.values()), threading.Lock()

        def told(got_bytes: int) -> None:
            nonlocal done
            with lock:
                done = min(done + got_bytes, total)
                on_progress(done, total)

        with ThreadPoolExecutor(_FILES_AT_ONCE) as pool:
            fetched = [pool.submit(self._fetch, *each, told) for each in absent.items()]
            try:
                for each in as_completed(fetched):
                    each.result()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        on_progress(total, total)
        return sum(absent.values())

    def _fetch(self, name: str, size: int, told: Callable[[int], None]) -> None:
        """Download one file, from where an earlier try broke off.

        `hf_hub_download` throws away what a broken download brought (huggingface_hub#4228), so
        this calls the client's function below it, which takes an offset.
        """
        from huggingface_hub import constants, hf_hub_download, hf_hub_url
        from huggingface_hub.file_download import http_get
        from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

        ref, token, endpoint = self.ref, self.hub.token or False, self.hub.endpoint
        part = self.folder / _PARTS / name
        with hub_errors(ref, self.hub), disk_errors(self.folder):
            part.parent.mkdir(parents=True, exist_ok=True)
            (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
            if size > constants.MAX_HTTP_DOWNLOAD_SIZE:  # only Xet carries these
                hf_hub_download(
                    ref.path,
                    name,
                    revision=ref.revision,
                    local_dir=self.folder,
                    endpoint=endpoint,
                    token=token,
                    tqdm_class=_teller(told),
                )
                return
            with part.open("ab") as file:
                http_get(
                    hf_hub_url(ref.path, name, revision=ref.revision, endpoint=endpoint),
                    file,
                    resume_size=file.tell(),
                    headers=build_hf_headers(token=token),
                    expected_size=size,
                    tqdm_class=_teller(told),
                )
            part.replace(self.folder / name)


def _teller(told: Callable[[int], None]) -> Any:
    """A progress bar for the client that tells the bytes it got, and draws nothing."""
    from huggingface_hub.utils.tqdm import tqdm

    class Teller(tqdm):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **{**kwargs, "disable": True})  # type: ignore[no-untyped-call]
            told(int(kwargs.get("initial") or 0))

        def update(self, n: float | None = 1) -> None:
            told(int(n or 0))

    return Teller


def _has(path: Path, size_bytes: int) -> bool:
    return path.is_file() and path.stat().st_size == size_bytes


def _complete(store: Store, root: Digest) -> bool:
    """Whether every file is here, byte for byte; what is damaged is pulled again."""
    if root not in store.roots():
        return False
    try:
        verify(store.checkpoint(root), store.manifest(root))
    except StoreError:
        return False
    return True


def _refuse_remote_code(config: Path, policy: Policy, where: str) -> None:
    try:
        body: dict[str, Any] = json.loads(config.read_text())
    except (OSError, ValueError):
        return  # the scan names what is wrong with it
    if body.get("auto_map") and not policy.allow_remote_code:
        raise PolicyRefused(
            f"{where}: config.json asks for code of its own (auto_map)",
            hint="choose another repository, or set policy.allow_remote_code: true",
        )


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatch(name, pattern) for pattern in patterns)


def api(hub: Hub) -> Any:
    """Return the Hub's client."""
    from huggingface_hub import HfApi

    return HfApi(endpoint=hub.endpoint, token=hub.token or False, library_name="penstock")


@contextmanager
def hub_errors(ref: ModelRef, hub: Hub) -> Iterator[None]:
    """Turn the client's errors into ours."""
    import httpx
    from huggingface_hub import errors

    try:
        yield
    except errors.GatedRepoError as problem:
        why = "this token does not open it" if hub.token else "no token is set"
        raise AccessDenied(
            f"{ref}: gated, and {why}",
            hint="accept its terms on the Hub, then set HF_TOKEN",
        ) from problem
    except errors.RepositoryNotFoundError as problem:
        raise RepositoryNotFound(
            f"{ref}: no such repository at {hub.endpoint}, or it is private",
            hint="check the name; for a private one set HF_TOKEN",
        ) from problem
    except errors.RevisionNotFoundError as problem:
        raise RevisionNotFound(
            f"{ref}: the repository has no revision {ref.revision!r}",
            hint="use a branch, a tag or a commit that exists; main is the default",
        ) from problem
    except (errors.HfHubHTTPError, httpx.HTTPError, OSError) as problem:
        ours = _lost(problem, ref, hub)
        if ours is None:
            raise
        raise ours from problem


def _lost(problem: Exception, ref: ModelRef, hub: Hub) -> HubError | None:
    """Return our error for a Hub that did not answer as promised; None if it is not the Hub's."""
    from huggingface_hub import errors

    if isinstance(problem, errors.HfHubHTTPError):
        status = problem.response.status_code
        if status in (401, 403):
            return AccessDenied(f"{ref}: HTTP {status}", hint="set HF_TOKEN")
        if status < 500 and status != 429:
            return HubError(f"{ref}: HTTP {status} from {hub.endpoint}")
        return _unreachable(hub, f"HTTP {status}")
    if isinstance(problem, OSError) and problem.errno is not None:
        return _unreachable(hub, type(problem).__name__) if _network(problem) else None
    # without a number it is the client's word for an answer of the wrong length
    return _unreachable(hub, str(problem).partition("\n")[0] or type(problem).__name__)


def _network(problem: OSError) -> bool:
    return isinstance(problem, ConnectionError | TimeoutError)


def _unreachable(hub: Hub, why: str) -> HubUnreachable:
    return HubUnreachable(
        f"{hub.endpoint} does not answer ({why})",
        hint="check the network and HF_ENDPOINT, then run again: a pull resumes",
    )
