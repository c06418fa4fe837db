"""Builds from Go modules what neither Debian nor PyPI carries; a binary is built once."""

from __future__ import annotations

import hashlib
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from penstock.core.errors import LifecycleError
from tests.cluster.kept import used
from tests.cluster.places import HERE, cache

GO = HERE / "go"
_STRIP = "-s -w"
KUBERNETES = "k8s.io/kubernetes@v1.34.4"
KSERVE = "github.com/kserve/kserve@v0.20.0"
GATEWAY_API = "sigs.k8s.io/gateway-api@v1.5.1"
ISTIO = "istio.io/api@v1.27.1"
KUEUE = "sigs.k8s.io/kueue@v0.17.0"
PROMETHEUS_OPERATOR = "github.com/prometheus-operator/prometheus-operator@v0.85.0"
TRAINERS = tuple(f"github.com/kubeflow/trainer/v2@v2.{minor}.0" for minor in range(4))
DEFINING = (KUBERNETES, KSERVE, GATEWAY_API, ISTIO, KUEUE, PROMETHEUS_OPERATOR, *TRAINERS)
"""Modules whose definitions of objects are read; most are never built."""


class BuildError(LifecycleError):
    """A binary could not be built."""


_KUBERNETES = KUBERNETES.rpartition("@")[2]
_MAJOR, _MINOR, _ = _KUBERNETES.removeprefix("v").split(".")
_BUILD = {
    "gitVersion": _KUBERNETES, "gitMajor": _MAJOR, "gitMinor": _MINOR, "gitTreeState": "clean",
    "gitCommit": "gomod", "buildDate": "1970-01-01T00:00:00Z",
}  # fmt: skip
_OF_KUBERNETES = tuple(
    f"{package}.{key}={value}"
    for package in ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
    for key, value in _BUILD.items()
)
_OF_HELM = tuple(
    f"helm.sh/helm/v4/{package}.{key}{part}={value}"
    for package, key in (
        ("pkg/chart/common", "k8sVersion"),
        ("pkg/chart/v2/lint/rules", "k8sVersion"),
        ("internal/version", "kubeClientVersion"),
    )
    for part, value in (("Major", _MAJOR), ("Minor", _MINOR))
)


@dataclass(frozen=True, slots=True)
class Binary:
    """One program of one module below `go/`."""

    name: str
    module: str
    package: str = "."
    links: tuple[str, ...] = ()
    """NAME=VALUE that the linker sets: versions, which Go modules do not carry."""

    @property
    def flags(self) -> list[str]:
        """What `go build` is told."""
        link = _STRIP + "".join(f" -X {each}" for each in self.links)
        return ["-mod=readonly", "-buildvcs=false", "-trimpath", "-ldflags", link]


BINARIES = (
    Binary("etcd", "kubernetes", "go.etcd.io/etcd/server/v3", _OF_KUBERNETES),
    *(
        Binary(name, "kubernetes", f"k8s.io/kubernetes/cmd/{name}", _OF_KUBERNETES)
        for name in (
            "kube-apiserver", "kubelet", "kube-controller-manager", "kube-scheduler",
            "kubectl", "kube-proxy",
        )
    ),
    Binary("kserve-manager", "kserve", "github.com/kserve/kserve/cmd/manager"),
    Binary("kserve-llmisvc", "kserve", "github.com/kserve/kserve/cmd/llmisvc"),
    Binary("lws-manager", "kserve", "sigs.k8s.io/lws/cmd"),
    Binary("envoy-gateway", "envoy-gateway", "github.com/envoyproxy/gateway/cmd/envoy-gateway"),
    Binary("coredns", "coredns"),
    Binary("fake-gpu", "fake-gpu"),
    # tests of the chart run it; beside Kubernetes little is compiled twice
    Binary("helm", "kubernetes", "helm.sh/helm/v4/cmd/helm", _OF_HELM),
)  # fmt: skip


def go(*arguments: str, module: str) -> str:
    """Return what a `go` command prints, run in a module below `go/`.

    Raises:
        BuildError: Go is missing, or the command failed.
    """
    try:
        return subprocess.run(
            ["go", *arguments], cwd=GO / module, check=True, capture_output=True, text=True
        ).stdout.strip()
    except FileNotFoundError as problem:
        raise BuildError("go is not installed", hint="Go >= 1.26 must be on the PATH") from problem
    except subprocess.CalledProcessError as problem:
        raise BuildError(
            f"go {arguments[0]} failed in {module}:\n{problem.stderr[-1500:]}"
        ) from problem


def module_folder(path: str, *, module: str) -> Path:
    """Return where Go keeps the source of a module that a module below `go/` requires."""
    return Path(go("list", "-mod=readonly", "-m", "-f", "{{.Dir}}", path, module=module))


def built(binary: Binary, go_version: str) -> Path:
    """Return where a binary lies once it is built: its name tells what it was made of."""
    digest = hashlib.sha256("\0".join([go_version, binary.package, *binary.flags]).encode())
    for file in sorted((GO / binary.module).iterdir()):
        digest.update(file.name.encode() + file.read_bytes())
    return cache() / "bin" / f"{binary.name}-{digest.hexdigest()[:16]}"


def binaries(say: Callable[[str], None]) -> dict[str, Path]:
    """Build what is missing and return every binary by name.

    Raises:
        BuildError: One could not be built; the message ends with the compiler's last lines.
    """
    version = go("env", "GOVERSION", module="fake-gpu")
    found = {binary.name: built(binary, version) for binary in BINARIES}
    missing = [binary for binary in BINARIES if not found[binary.name].exists()]
    ahead = ThreadPoolExecutor(1)
    try:
        for binary in missing:
            ahead.submit(_fetch, binary)
        for binary in missing:
            began = time.monotonic()
            _build(binary, found[binary.name])
            say(f"built {binary.name} in {time.monotonic() - began:.0f} s")
    finally:
        ahead.shutdown(cancel_futures=True)
    for path in found.values():
        used(path)
    definitions()
    return found


def definitions() -> None:
    """Fetch the modules whose definitions are read.

    Raises:
        BuildError: Go is missing, or one could not be had.
    """
    modules = Path(go("env", "GOMODCACHE", module="fake-gpu"))
    if missing := [each for each in DEFINING if not (modules / each).exists()]:
        go("mod", "download", *missing, module="fake-gpu")


def _fetch(binary: Binary) -> None:
    """Have a binary's sources come while others are compiled; what is amiss, its build says."""
    with suppress(BuildError):
        go("list", "-mod=readonly", "-deps", binary.package, module=binary.module)


def _build(binary: Binary, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_name(f".{path.name}.half")
    command = ["nice", "go", "build", *binary.flags, "-o", str(half), binary.package]
    done = subprocess.run(
        ["env", "CGO_ENABLED=0", "GOGC=400", *command],  # rarer collections: 17 % less time
        cwd=GO / binary.module, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        tail = "\n".join(done.stderr.splitlines()[-15:])
        where = f"tests/cluster/go/{binary.module}"
        raise BuildError(f"{binary.name} ({where}) does not build:\n{tail}")
    half.replace(path)
