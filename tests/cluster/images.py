"""Images of one file or few, made here and put into the local registry: no builder is needed."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, cast

import httpx

from penstock import __version__
from serving.kserve.runtimes import CPU_IMAGE
from tests.cluster.places import cache

Object = dict[str, Any]
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_OCI = "application/vnd.oci.image"


@dataclass(frozen=True, slots=True)
class Image:
    """One image: files of this machine and links, in one layer over another image or none."""

    name: str
    files: Mapping[str, Path] = field(default_factory=dict)
    links: Mapping[str, str] = field(default_factory=dict)
    entrypoint: tuple[str, ...] = ()
    user: str = ""
    path: str = _PATH
    base: str = ""
    """Name of an image in the registry whose layers come first."""

    @property
    def repository(self) -> str:
        """The name without its tag."""
        return self.name.rpartition(":")[0]

    @property
    def digest(self) -> str:
        """What the image is made of: sources are told apart by name, size and time."""
        parts = [self.name, self.base, self.user, self.path, *self.entrypoint]
        parts.append(Path(__file__).read_text())
        parts += [f"{path}={target}" for path, target in sorted(self.links.items())]
        for path, source in sorted(self.files.items()):
            facts = source.stat()
            parts.append(f"{path}={source}:{facts.st_size}:{facts.st_mtime_ns}")
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def images(binaries: Mapping[str, Path], debian: Path, python: Path) -> list[Image]:
    """Return the images that the cluster itself runs, and a shell for tests."""
    busybox = {"bin/busybox": debian / "usr/bin/busybox"}
    applets = subprocess.run(
        [str(busybox["bin/busybox"]), "--list"], check=True, capture_output=True, text=True
    ).stdout.split()
    links = {f"bin/{applet}": "busybox" for applet in applets if applet != "busybox"}
    envoy = next(python.glob("lib/python3*/site-packages/envoy/_bin/envoy"))
    return [
        Image("pause:1", busybox, entrypoint=("/bin/busybox", "sleep", "2147483647")),
        Image("busybox:1", busybox, links),
        Image("coredns:1", {"coredns": binaries["coredns"]}, entrypoint=("/coredns",)),
        Image("envoy-gateway:1", {"usr/local/bin/envoy-gateway": binaries["envoy-gateway"]}),
        Image("envoy:1", {"usr/local/bin/envoy": envoy, **_libraries(envoy)}),
    ]


def thin_images(stand_in: str) -> list[Image]:
    """Return images that would bring CUDA, and that are thin here, over the public Python's.

    Their `python3` is the one of this repository's environment, which every container sees because
    containerd mounts it, read-only, and so they run what lies in this repository.
    """
    path = f"{sys.prefix}/bin:{_PATH}"
    steps = dict.fromkeys(("penstock-python", "penstock-quantize-python"), ())
    thin = partial(Image, user="10001", path=path, base=stand_in.removeprefix("docker.io/"))
    return [
        thin(f"{prefix}{name}:{__version__}", entrypoint=entrypoint)
        for prefix in ("", "library/")  # containerd calls a bare name library/…
        for name, entrypoint in {CPU_IMAGE: ("penstock", "serve"), **steps}.items()
    ]


def push(image: Image, registry: str, say: Callable[[str], None]) -> None:
    """Put an image into the registry unless the very same one is there."""
    pushed = cache() / "pushed" / image.name.replace("/", "_")
    if pushed.exists() and pushed.read_text() == image.digest:
        return
    repository, _, tag = image.name.rpartition(":")
    with httpx.Client(base_url=f"{registry}/v2/", timeout=60) as client:
        config, layers = _inherited(client, image)
        with tempfile.TemporaryFile(dir=cache()) as layer:
            digest = _layer(image, layer)
            size = layer.seek(0, io.SEEK_END)
            _blob(client, repository, digest, layer)
        layers.append({"mediaType": f"{_OCI}.layer.v1.tar", "digest": digest, "size": size})
        config["rootfs"]["diff_ids"].append(digest)
        config["config"] |= {
            "Entrypoint": list(image.entrypoint),
            "User": image.user,
            "Env": [f"PATH={image.path}"],
        }
        content = json.dumps(config).encode()
        described = f"sha256:{hashlib.sha256(content).hexdigest()}"
        _blob(client, repository, described, io.BytesIO(content))
        manifest = {
            "schemaVersion": 2,
            "mediaType": f"{_OCI}.manifest.v1+json",
            "config": {
                "mediaType": f"{_OCI}.config.v1+json", "digest": described, "size": len(content),
            },
            "layers": layers,
        }  # fmt: skip
        headers = {"Content-Type": str(manifest["mediaType"])}
        client.put(
            f"{repository}/manifests/{tag}", json=manifest, headers=headers
        ).raise_for_status()
    pushed.parent.mkdir(exist_ok=True)
    pushed.write_text(image.digest)
    say(f"image {image.name}: {size >> 20} MB")


def taken_for(registry: str, name: str, others: Iterable[str]) -> None:
    """Have the node take an image of the registry for others, which cannot be had here.

    Args:
        registry: HOST:PORT.
        name: Of the image in it.
        others: As pods name them.
    """
    ours, ctr = f"{registry}/{name}", ["ctr", "-n", "k8s.io", "images"]
    full = [each if "." in each.partition("/")[0] else f"docker.io/{each}" for each in others]
    for command in (["pull", "--plain-http", ours], ["tag", "--force", ours, *full]):
        subprocess.run([*ctr, *command], check=True, capture_output=True, timeout=120)


def collect(configuration: Path) -> None:
    """Remove from a registry that does not run what no tag needs any more."""
    command = ("docker-registry", "garbage-collect", "--delete-untagged", str(configuration))
    subprocess.run(command, check=True, capture_output=True)


def link(registry: str, name: str, other: str) -> None:
    """Have the registry know an image by another name too."""
    (source, tag), (target, other_tag) = name.rsplit(":", 1), other.rsplit(":", 1)
    with httpx.Client(base_url=f"{registry}/v2/", timeout=60) as client:
        manifest = _get(client, f"{source}/manifests/{tag}")
        _mount(client, source, target, [manifest["config"], *manifest["layers"]])
        client.put(
            f"{target}/manifests/{other_tag}",
            json=manifest,
            headers={"Content-Type": str(manifest["mediaType"])},
        ).raise_for_status()


def _inherited(client: httpx.Client, image: Image) -> tuple[Object, list[Object]]:
    """Return the configuration and the layers that an image starts from."""
    if not image.base:
        root = {"config": {}, "rootfs": {"type": "layers", "diff_ids": []}}
        return {"architecture": "amd64", "os": "linux", **root}, []
    source, tag = image.base.rsplit(":", 1)
    manifest = _get(client, f"{source}/manifests/{tag}")
    _mount(client, source, image.repository, manifest["layers"])
    return _get(client, f"{source}/blobs/{manifest['config']['digest']}"), manifest["layers"]


def _mount(client: httpx.Client, source: str, target: str, blobs: list[Object]) -> None:
    for blob in blobs:
        asked = {"mount": blob["digest"], "from": source}
        client.post(f"{target}/blobs/uploads/", params=asked).raise_for_status()


def _get(client: httpx.Client, url: str) -> Object:
    found = client.get(url, headers={"Accept": f"{_OCI}.manifest.v1+json"}).raise_for_status()
    return cast(Object, found.json())


def _layer(image: Image, file: io.BufferedRandom) -> str:
    def plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
        entry.uid = entry.gid = entry.mtime = 0
        entry.uname = entry.gname = ""
        return entry

    with tarfile.open(fileobj=file, mode="w") as archive:
        for folder, mode in {"tmp": 0o1777, "etc": 0o755}.items():
            entry = plain(tarfile.TarInfo(folder))
            entry.type, entry.mode = tarfile.DIRTYPE, mode
            archive.addfile(entry)
        for path, source in sorted(image.files.items()):
            archive.add(source.resolve(), path, filter=plain)
        for path, target in sorted(image.links.items()):
            entry = plain(tarfile.TarInfo(path))
            entry.type, entry.linkname = tarfile.SYMTYPE, target
            archive.addfile(entry)
    file.seek(0)
    return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def _blob(client: httpx.Client, repository: str, digest: str, content: io.IOBase) -> None:
    if client.head(f"{repository}/blobs/{digest}").is_success:
        return
    content.seek(0)
    upload = client.post(f"{repository}/blobs/uploads/").raise_for_status().headers["Location"]
    client.put(
        httpx.URL(upload).copy_merge_params({"digest": digest}),
        content=content.read(),
        headers={"Content-Type": "application/octet-stream"},
    ).raise_for_status()


def _libraries(program: Path) -> dict[str, Path]:
    """Return the shared libraries of a program by the path where it looks for them."""
    printed = subprocess.run(
        ["ldd", str(program)], check=True, capture_output=True, text=True
    ).stdout
    paths = [word for word in printed.split() if word.startswith("/")]
    return {path.lstrip("/"): Path(path) for path in paths}
