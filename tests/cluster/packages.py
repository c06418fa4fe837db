"""Unpacks into the cache what Debian and PyPI carry; nothing is installed on this machine."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from penstock.core.errors import LifecycleError
from tests.cluster.places import HERE, REPOSITORY, cache

DEBIAN = (
    "busybox-static", "conntrack", "containerd", "containernetworking-plugins",
    "debootstrap", "docker-registry", "iptables", "nftables", "prometheus", "runc",
)  # fmt: skip
_BASE = ("ca-certificates", "python3", "python3-pip", "python3-venv")
_IPTABLES = [f"{ip}tables{do}" for ip in ("ip", "ip6") for do in ("", "-save", "-restore")]


class PackageError(LifecycleError):
    """A package could not be fetched or unpacked."""


def debian(say: Callable[[str], None]) -> Path:
    """Return a folder with `usr/`: the packages and what they need that this machine lacks."""
    with _once("debian", " ".join(DEBIAN), say) as (folder, fresh):
        if fresh:
            _unpack(folder)
    return folder


def environment(say: Callable[[str], None]) -> Path:
    """Return a Python environment with Envoy and the S3 server."""
    requirements = HERE / "requirements.txt"
    with _once("python", requirements.read_text() + sys.version, say) as (folder, fresh):
        if fresh:
            uv = str(Path(sys.executable).with_name("uv"))
            _command(uv, "venv", "-q", "--python", sys.executable, "--relocatable", str(folder))
            python = str(folder / "bin" / "python")
            _command(
                uv, "pip", "install", "-q", "--compile-bytecode", "--require-hashes",
                "--python", python, "-r", str(requirements),
            )  # fmt: skip
    return folder


def base(debian_folder: Path, say: Callable[[str], None]) -> Path:
    """Return the root folder of a Debian with Python: stands in for the image python:3.11-slim."""
    with _once("base", " ".join(_BASE), say) as (folder, fresh):
        if fresh:
            overlay = f"mount -t overlay -o lowerdir={debian_folder}/usr:/usr overlay /usr"
            _command("unshare", "--mount", "sh", "-c", f'{overlay} && exec "$@"', "sh",
                     "debootstrap", "--variant=minbase", f"--include={','.join(_BASE)}",
                     "bookworm", str(folder))  # fmt: skip
            for rubbish in ("var/cache/apt", "var/lib/apt/lists", "usr/share/doc",
                            "usr/share/locale", "usr/share/man"):  # fmt: skip
                shutil.rmtree(folder / rubbish)
            # what the public image does: pip installs, and `python` is Python
            next(folder.glob("usr/lib/python3*/EXTERNALLY-MANAGED")).unlink()
            (folder / "usr/local/bin/python").symlink_to("/usr/bin/python3")
            (folder / "root").chmod(0o755)  # this machine's Python may be mounted below it
    return folder


def kserve_storage(say: Callable[[str], None]) -> Path:
    """Return KServe's library, as the storage image's lock file has it, and a `python3` for it."""
    lock = REPOSITORY / "requirements" / "storage.txt"
    with _once("storage", lock.read_text() + sys.version, say) as (folder, fresh):
        if fresh:
            uv = str(Path(sys.executable).with_name("uv"))
            _command(
                uv, "pip", "install", "-q", "--python", sys.executable, "--require-hashes",
                "--target", str(folder / "site"), "-r", str(lock),
            )  # fmt: skip
            python = f"PYTHONPATH=/opt/kserve:{REPOSITORY} exec {sys.base_prefix}/bin/python3 -B"
            (folder / "python3").write_text(f'#!/bin/sh\n{python} "$@"\n')
            (folder / "python3").chmod(0o755)
    return folder


def _unpack(folder: Path) -> None:
    archives = folder / "archives"
    (archives / "partial").mkdir(parents=True)
    _command(
        "apt-get", "install", "-qq", "-y", "--download-only", "--no-install-recommends",
        "-o", f"Dir::Cache::archives={archives}", "-o", "APT::Sandbox::User=root", *DEBIAN,
    )  # fmt: skip
    for name in ("bin", "sbin", "lib", "lib64"):  # as Debian's merged /usr has them
        (folder / "usr" / name).mkdir(parents=True)
        (folder / name).symlink_to(f"usr/{name}")
    for archive in archives.glob("*.deb"):
        content = subprocess.run(
            ["dpkg-deb", "--fsys-tarfile", str(archive)], check=True, capture_output=True
        ).stdout
        subprocess.run(
            ["tar", "-x", "--keep-directory-symlink", "-C", str(folder)], input=content, check=True
        )
    for name in _IPTABLES:  # what update-alternatives would do
        (folder / "usr" / "sbin" / name).symlink_to("xtables-nft-multi")
    shutil.rmtree(archives)


def _command(*command: str) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
    except FileNotFoundError as problem:
        raise PackageError(f"{command[0]} is not here", hint="Debian 12, as root") from problem
    except subprocess.CalledProcessError as problem:
        raise PackageError(
            f"{' '.join(command[:2])} failed: {problem.stderr[-1000:]}",
            hint="apt-get update, then once more",
        ) from problem


@contextmanager
def _once(name: str, made_of: str, say: Callable[[str], None]) -> Iterator[tuple[Path, bool]]:
    """Yield a folder to fill and whether it is to be filled; it counts only when that is done."""
    digest = hashlib.sha256((made_of + Path(__file__).read_text()).encode()).hexdigest()[:16]
    folder = cache() / f"{name}-{digest}"
    done = folder / ".done"
    fresh = not done.exists()
    began = time.monotonic()
    if fresh:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    yield folder, fresh
    if fresh:
        done.touch()
        say(f"unpacked {name} in {time.monotonic() - began:.0f} s")
