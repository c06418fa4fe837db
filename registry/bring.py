"""Brings a checkpoint into a pod and lets its engine start only if every byte is as recorded.

`python3 -m registry.bring --root=sha256:… [--manifest=JSON] SOURCE FOLDER`, in the place of
KServe's storage-initializer and with KServe's own library, whose variables it reads (`AWS_*`,
`HF_*`). A `pvc://` source is mounted at FOLDER already, and only verified.

Fetching needs kserve-storage; verifying needs the standard library only.
"""

from __future__ import annotations

import argparse
import fnmatch
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from penstock.core.errors import DigestMismatch, LifecycleError, StoreError, disk_errors
from penstock.core.identity import Digest, ModelRef
from penstock.core.manifest import Manifest
from registry.published import MANIFEST, matching, read, verify_published
from registry.store import hash_file, manifest_of

Fetch = Callable[[str, Path, Sequence[str]], None]
"""Fetches a source's files that match any of the patterns, all if there are none."""

_HUB = "hf://"
_MOUNTED = "pvc://"
_CACHE = ".cache"
_ELSEWHERE = (
    "target.kserve.storage must name the claim, and the path in it, that is mounted at its FOLDER "
    "where penstock runs"
)
_AGAIN = "publish the checkpoint again: penstock run model.yaml; what is served stays served"


def bring(
    source: str, folder: Path, root: Digest, manifest: Manifest | None = None, *, fetch: Fetch
) -> Manifest:
    """Fetch a checkpoint and verify it; return its manifest.

    Args:
        source: `hf://ORG/NAME:REVISION`, `s3://BUCKET/PREFIX/ROOT` or `pvc://…`, mounted already.
        folder: Where the files go, or are.
        root: What they must be.
        manifest: Which files they are, if known; otherwise the published manifest says so.
        fetch: How files are fetched.

    Raises:
        DigestMismatch: They are other files; names each that differs.
        StoreError: They could not be fetched.
    """
    if not source.startswith(_MOUNTED):
        with disk_errors(folder):
            missing = _missing(source, folder, manifest)
            if missing is None or missing:
                fetch(source, folder, _patterns(source, missing))
            shutil.rmtree(folder / _CACHE, ignore_errors=True)  # the Hub client's notes
            if source.startswith(_HUB) and manifest is None:
                _only_served(folder)
    elif not any(folder.iterdir()):
        raise StoreError(f"{source}: nothing lies there", hint=_ELSEWHERE)
    known = manifest or read(folder, root)
    if known is None:
        return _by_root(source, folder, root)
    if not source.startswith(_MOUNTED):
        _empty_files(folder, known)
    try:
        verify_published(folder, known)
    except DigestMismatch as problem:
        raise DigestMismatch(f"{source}: {problem}", hint=_AGAIN) from problem
    return known


def _missing(source: str, folder: Path, manifest: Manifest | None) -> list[str] | None:
    """Remove what an attempt before left unfinished; return what has yet to come; None: not known.

    A container that starts again finds its pod's files: those that are whole stay, and a store that
    is down then keeps nobody from serving. A killed download leaves parts under other names, which
    would be taken for files that somebody added.
    """
    if manifest is None and source.startswith(_HUB):
        return None  # its client goes on by itself
    known = {} if manifest is None else {entry.path: entry for entry in manifest.files}
    for path in folder.rglob("*"):
        name = path.relative_to(folder)
        if path.is_dir() or (name.parts[0] == _CACHE and source.startswith(_HUB)):
            continue
        entry = known.get(name.as_posix())
        size = path.stat().st_size
        if entry is None or size != entry.size_bytes or hash_file(path) != entry.digest:
            path.unlink()
    if manifest is None:
        return None
    wanted = (entry.path for entry in manifest.files if entry.size_bytes)
    return [each for each in wanted if not (folder / each).exists()]


def _patterns(source: str, missing: Sequence[str] | None) -> Sequence[str]:
    if missing is not None:
        return [*map(_literally, missing), MANIFEST]
    return _served() if source.startswith(_HUB) else ()


def _served() -> Sequence[str]:
    from registry.pull import SERVED  # brings pydantic, which verifying does not need

    return SERVED


def _literally(path: str) -> str:
    return path.replace("[", "[[]").replace("*", "[*]").replace("?", "[?]")


def _only_served(folder: Path) -> None:
    """Remove what a pull into the store would not have taken: patterns match in subfolders too."""
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif not any(fnmatch.fnmatch(path.name, pattern) for pattern in _served()):
            path.unlink()


def _empty_files(folder: Path, manifest: Manifest) -> None:
    """Make the empty files, which KServe's library leaves out when it fetches from S3."""
    for entry in manifest.files:
        path = folder / entry.path
        if entry.size_bytes == 0 and not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()


def _by_root(source: str, folder: Path, root: Digest) -> Manifest:
    found = manifest_of(folder, ModelRef("file", str(folder)))
    if found.root != root:
        listed = "".join(f"\n  {f.digest} {f.size_bytes} {f.path}" for f in found.files)
        raise DigestMismatch(
            f"{source}: not the files that were recorded: their root digest is {found.root}, not "
            f"{root}; there are {len(found.files)}:{listed}",
            hint=_AGAIN,
        )
    return found


def fetch_with_kserve(source: str, folder: Path, patterns: Sequence[str]) -> None:
    """Fetch with KServe's library; it must be installed."""
    from kserve_storage import Storage

    try:
        Storage.download(source, str(folder), allow_patterns=list(patterns) or None)
    except Exception as problem:
        # it raises whatever its clients raise, and RuntimeError
        raise StoreError(
            f"{source}: cannot be fetched: {problem}",
            hint="check the address, the Secret with its credentials, and the network",
        ) from problem


def main(arguments: Sequence[str] | None = None, fetch: Fetch = fetch_with_kserve) -> int:
    """Bring what the command line names; return 0 when the engine may start."""
    parser = argparse.ArgumentParser(prog="python3 -m registry.bring", description=__doc__)
    parser.add_argument("--root", required=True, help="the checkpoint's root digest")
    parser.add_argument("--manifest", help="its manifest, as JSON")
    parser.add_argument("source")
    parser.add_argument("folder", type=Path)
    options = parser.parse_args(arguments)
    start = time.monotonic()
    try:
        root = Digest.parse(options.root)
        listed = matching(options.manifest, root, "--manifest") if options.manifest else None
        found = bring(options.source, options.folder, root, listed, fetch=fetch)
    except LifecycleError as error:
        hint = f"\n  {error.hint}" if error.hint else ""
        print(f"error: {error}{hint}", file=sys.stderr, flush=True)  # noqa: T201 - the process edge
        return error.exit_code
    print(  # noqa: T201 - the one line
        f"verified {len(found.files)} files, {found.size_bytes} bytes: {found.root} in "
        f"{time.monotonic() - start:.1f} s",
        flush=True,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
