"""The images of engine and storage, put together here: this machine's Python, and files.

The cluster mounts the repository and the interpreter into every pod, at the paths they have here.
What else a Python program needs of a system is in the image: the loader, the libraries, a shell.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import sysconfig
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from serving.kserve.runtimes import CPU_IMAGE
from serving.kserve.storage import IMAGE as STORAGE_IMAGE
from tests.cluster import images
from tests.cluster.packages import PackageError
from tests.cluster.places import REPOSITORY, cache

REGISTRY = "localhost"
"""In front of the names: the cluster's containerd asks the local registry whatever the host is."""

_COMMON = (
    "libdl.so.2", "libgcc_s.so.1", "libnss_dns.so.2", "libpthread.so.0", "libresolv.so.2",
    "librt.so.1", "libstdc++.so.6", "libutil.so.1",
)  # fmt: skip
"""What compiled packages need besides."""

_OWN = ("penstock", "registry")
"""What of this repository the storage image needs; in the real one, the wheel brings it."""


def put(registry: str, busybox: Path) -> str:
    """Put both images into the cluster's registry; return their tag, which changes with them.

    Args:
        registry: Address of the registry.
        busybox: A shell that needs no libraries.
    """
    folder = cache() / "python-images"
    folder.mkdir(parents=True, exist_ok=True)
    system = {"bin/sh": busybox, **_libraries()}
    site = kserve_storage()
    # the repository's own environment; the engine is started as `python3 -m serving.engine`
    engine = _script(folder / "engine", f'exec {REPOSITORY}/.venv/bin/python -B "$@"')
    storage = _script(
        folder / "storage",
        f'PYTHONPATH=/opt/penstock exec {sys.base_prefix}/bin/python3 -B "$@"',
    )
    packages = {f"opt/penstock/{name}": REPOSITORY / name for name in _OWN}
    both = [
        images.Image(CPU_IMAGE, {**system, "usr/local/bin/python3": engine}),
        images.Image(
            STORAGE_IMAGE,
            {**system, "usr/local/bin/python3": storage, "opt/penstock": site, **packages},
        ),
    ]
    digest = hashlib.sha256("".join(image.digest for image in both).encode())
    for name in _OWN:  # a folder's own time says nothing about the files in it
        for path in sorted((REPOSITORY / name).rglob("*.py")):
            digest.update(path.read_bytes())
    tag = f"t{digest.hexdigest()[:12]}"
    for image in both:
        images.push(replace(image, name=f"{image.name}:{tag}"), registry, lambda _said: None)
    return tag


def kserve_storage(*, fetch: bool = False) -> Path:
    """Return KServe's library as the lock file of the storage image has it.

    Args:
        fetch: Whether it may be fetched; there is no network inside the cluster's namespaces.

    Raises:
        PackageError: It was not fetched yet.
    """
    lock = REPOSITORY / "requirements" / "storage.txt"
    folder = cache() / f"storage-{hashlib.sha256(lock.read_bytes()).hexdigest()[:16]}"
    if not (folder / ".done").exists():
        if not fetch:
            raise PackageError(
                f"{folder} is not there",
                hint="once, outside: python -m tests.cluster.python_images",
            )
        uv = str(Path(sys.executable).with_name("uv"))
        command = [uv, "pip", "install", "-q", "--python", sys.executable, "--require-hashes"]
        subprocess.run([*command, "--target", str(folder), "-r", str(lock)], check=True)
        (folder / ".done").touch()
    return folder


def _script(path: Path, line: str) -> Path:
    text = f"#!/bin/sh\n{line}\n"
    if not path.exists() or path.read_text() != text:
        path.write_text(text)
        path.chmod(0o755)
    return path


def _libraries() -> dict[str, Path]:
    """Return the shared libraries of Python and its extension modules, by where they are sought."""
    extensions = Path(sysconfig.get_path("stdlib")) / "lib-dynload"
    programs = [Path(sys.base_prefix) / "bin/python3", *sorted(extensions.glob("*.so"))]
    found = {path for program in programs for path in _needed(program)}
    found |= {path for name in _COMMON for path in _linker(name)}
    inside = str(Path(sys.base_prefix))
    return {path.lstrip("/"): Path(path) for path in found if not path.startswith(inside)}


def _needed(program: Path) -> Iterable[str]:
    said = subprocess.run(["ldd", str(program)], check=True, capture_output=True, text=True)
    return [word for word in said.stdout.split() if word.startswith("/")]


def _linker(name: str) -> Iterable[str]:
    said = subprocess.run(["/sbin/ldconfig", "-p"], check=True, capture_output=True, text=True)
    lines = [line.split() for line in said.stdout.splitlines() if line.strip().startswith(name)]
    return [words[-1] for words in lines if "x86-64" in " ".join(words)]


if __name__ == "__main__":
    kserve_storage(fetch=True)
