"""Images as users build them: the project's Containerfiles, by buildah; kept by content."""

from __future__ import annotations

import ast
import configparser
import hashlib
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

from penstock import __version__
from penstock.core.errors import LifecycleError
from tests.cluster import images, packages
from tests.cluster.places import HERE, REGISTRY, REPOSITORY, cache

TESTED = ("penstock-controller-python", "penstock-storage-python")
"""What the tests' pods run. The engine's image would bring CUDA, so images.py makes a thin one."""

_IMAGES = REPOSITORY / "images"
_POLICY = '{"default": [{"type": "insecureAcceptAnything"}]}'


class ImageError(LifecycleError):
    """An image could not be built."""


def stand_in() -> str:
    """Return the public image's name, under which its stand-in is known."""
    text = (_IMAGES / f"{TESTED[0]}.Containerfile").read_text()
    return next(line for line in text.splitlines() if line.startswith("FROM ")).split()[1]


def started() -> list[str]:
    """Return what a cluster's registry has when it starts."""
    return [stand_in(), *(f"{name}:{__version__}" for name in TESTED)]


def named() -> list[str]:
    """Return every image of the project that starts from the public Python image."""
    found = {path.stem: path.read_text() for path in _IMAGES.glob("*.Containerfile")}
    return sorted(name for name, text in found.items() if f"FROM {stand_in()}\n" in text)


class Builder:
    """buildah, with a store of its own in the cache.

    Args:
        debian: Debian's packages.
        base: The root folder that the stand-in is made of.
        say: Told what was built.
    """

    def __init__(self, debian: Path, base: Path, say: Callable[[str], None]) -> None:
        self._debian, self._base, self._say = debian, base, say
        self._store = cache() / "images"
        (self._store / "built").mkdir(parents=True, exist_ok=True)
        self._policy = self._store / "policy.json"
        self._policy.write_text(_POLICY)

    def build(self, *names: str) -> None:
        """Build images unless they are built of the very same; the stand-in before them.

        Raises:
            ImageError: One could not be built; the message ends with the last lines.
        """
        built = [self._build(stand_in(), HERE / "python.Containerfile", lambda: self._base)]
        for name in names:
            file = _IMAGES / f"{name}.Containerfile"
            built.append(self._build(f"{name}:{__version__}", file, self._context))
        if any(built):
            self._buildah("rm", "--all")  # of builds that were killed
            self._buildah("rmi", "--prune")

    def push(self, name: str, registry: str) -> None:
        """Put an image into a registry, also as containerd calls a bare name."""
        digest = self._mark(name).read_text()
        pushed = cache() / "pushed" / name.replace("/", "_")
        if pushed.exists() and pushed.read_text() == digest:
            return
        bare = name.removeprefix("docker.io/").removeprefix("library/")
        self._buildah(
            "push", "--quiet", "--tls-verify=false", "--compression-format=zstd",
            "--compression-level=1", name, f"docker://{registry}/{bare}",
        )  # fmt: skip
        images.link(f"http://{registry}", bare, f"library/{bare}")
        pushed.parent.mkdir(exist_ok=True)
        pushed.write_text(digest)
        self._say(f"image {name} pushed")

    def _build(self, name: str, file: Path, context: Callable[[], Path]) -> bool:
        """Return whether there was something to build."""
        digest = self._digest(file)
        mark = self._mark(name)
        if mark.exists() and mark.read_text() == digest:
            return False
        began = time.monotonic()
        self._buildah(
            "build", "--layers", "--pull=never", "--isolation=chroot", "--network=host",
            *self._volumes(), f"--file={file}", f"--tag={name}", str(context()),
        )  # fmt: skip
        mark.write_text(digest)
        self._say(f"image {name} built in {time.monotonic() - began:.0f} s")
        return True

    def _digest(self, file: Path) -> str:
        text = file.read_text()
        digest = hashlib.sha256("\0".join([str(self._base), text]).encode())
        digest.update((HERE / "python.Containerfile").read_bytes())
        for path in re.findall(r"requirements/\S+\.txt", text):
            digest.update((REPOSITORY / path).read_bytes())
        if "dist/" in text:
            for source in _sources():
                digest.update(str(source).encode() + (REPOSITORY / source).read_bytes())
        return digest.hexdigest()

    def _mark(self, name: str) -> Path:
        return self._store / "built" / name.replace("/", "_")

    def _context(self) -> Path:
        """Make the folder that Containerfiles copy from: the locked requirements and the wheel."""
        folder = self._store / "context"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(REPOSITORY / "requirements", folder / "requirements")
        with tempfile.TemporaryDirectory() as clean:  # a build in place takes old files along
            for source in _sources():
                target = Path(clean) / source
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(REPOSITORY / source, target)
            uv = str(Path(sys.executable).with_name("uv"))
            _run("env", f"TMPDIR={clean}", uv, "build", "-q", "--wheel", "--no-build-isolation",
                 f"--python={sys.executable}", f"--out-dir={folder / 'dist'}", clean)  # fmt: skip
        return folder

    def _volumes(self) -> Iterator[str]:
        """Yield what lends pip's configuration to a build and leaves none of it in the image."""
        configuration = configparser.RawConfigParser()
        listed = _run(sys.executable, "-m", "pip", "config", "list")
        for line in listed.splitlines():
            name, _, value = line.partition("=")
            section, _, key = name.rpartition(".")
            section = "global" if section == ":env:" else section
            if not configuration.has_section(section):
                configuration.add_section(section)
            configuration.set(section, key, ast.literal_eval(value))
        path = self._store / "pip.conf"
        with path.open("w") as file:
            configuration.write(file)
        yield f"--volume={path}:/etc/pip.conf:ro"
        certificate = configuration.get("global", "cert", fallback="")
        if certificate:
            yield f"--volume={certificate}:{certificate}:ro"

    def _buildah(self, command: str, *arguments: str) -> str:
        temporary = self._store / "tmp"
        temporary.mkdir(exist_ok=True)
        options = [f"--root={self._store / 'root'}", f"--runroot={self._store / 'run'}",
                   "--storage-driver=overlay"]  # fmt: skip
        if command in ("build", "push"):
            arguments = (f"--signature-policy={self._policy}", *arguments)
        # buildah keeps a cache in /var, whatever it is told
        hidden = ("sh", "-c", 'mount -t tmpfs tmpfs /var && mkdir /var/tmp && exec "$@"', "sh")
        return _run(
            *packages.within(self._debian), *hidden, "env", f"TMPDIR={temporary}",
            "buildah", *options, command, *arguments,
        )  # fmt: skip


def _sources() -> list[Path]:
    """Return what the wheel is made of, relative to the repository."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    patterns = project["tool"]["setuptools"]["packages"]["find"]["include"]
    files = [
        path.relative_to(REPOSITORY)
        for pattern in patterns
        for path in (REPOSITORY / pattern.rstrip("*")).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    ]
    return [Path("pyproject.toml"), Path("README.md"), Path("LICENSE"), *sorted(files)]


def _run(*words: str) -> str:
    done = subprocess.run(words, check=False, capture_output=True, text=True)
    if done.returncode:
        tail = "\n".join((done.stdout + done.stderr).splitlines()[-15:])
        raise ImageError(f"{' '.join(words)[-300:]} failed:\n{tail}")
    return done.stdout


def main() -> None:
    """Give the cluster that this runs inside of the images that were just built."""
    builder = Builder(packages.debian(print), packages.base(packages.debian(print), print), print)
    for name in sys.argv[1:]:
        image = f"{name}:{__version__}"
        builder.push(image, REGISTRY)
        kept = _run("ctr", "-n", "k8s.io", "images", "list", "-q").split()
        for copy in (path for path in kept if path.endswith(f"/{image}")):
            _run("ctr", "-n", "k8s.io", "images", "rm", copy)


if __name__ == "__main__":
    main()
