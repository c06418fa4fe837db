"""etcd and kube-apiserver alone, on loopback: for tests that stop, restart and compact them."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from penstock.core.errors import LifecycleError
from serving.cluster import Object
from serving.kube import KubernetesCluster, connect
from serving.kube.calls import Call
from serving.kube.patience import Patience
from tests.cluster.build import BINARIES, BuildError, built, go, module_folder

ADMIN = "of-the-administrator"
GATEWAY_API = ("sigs.k8s.io/gateway-api", "standard/gateway.networking.k8s.io_httproutes.yaml")
KSERVE = ("github.com/kserve/kserve", "full/serving.kserve.io_inferenceservices.yaml")


class ControlPlane:
    """An API server that keeps its objects in an etcd.

    Args:
        binaries: Where `etcd` and `kube-apiserver` lie.
        folder: For everything they write.
    """

    def __init__(self, binaries: dict[str, Path], folder: Path) -> None:
        self._binaries, self._folder = binaries, folder
        self._etcd, self._peer, self._port = (_free_port() for _ in range(3))
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        (folder / "tokens").write_text(f"{ADMIN},admin,admin,system:masters\n")
        key = ["openssl", "genrsa", "-out", str(folder / "sa.key"), "2048"]
        subprocess.run(key, check=True, capture_output=True)

    @property
    def url(self) -> str:
        """The API server's address."""
        return f"https://127.0.0.1:{self._port}"

    @property
    def authority(self) -> Path:
        """The certificate that its own is signed with."""
        return self._folder / "apiserver.crt"

    def start(self) -> None:
        """Start both and wait until the API server is ready."""
        client, peer = f"http://127.0.0.1:{self._etcd}", f"http://127.0.0.1:{self._peer}"
        self._spawn(
            "etcd", "--data-dir", str(self._folder / "etcd"), "--unsafe-no-fsync",
            "--listen-client-urls", client, "--advertise-client-urls", client,
            "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
            "--initial-cluster", f"default={peer}", "--log-level", "error",
        )  # fmt: skip
        self.start_api()

    def start_api(self) -> None:
        """Start the API server and wait until it is ready."""
        key = self._folder / "sa.key"
        self._spawn(
            "kube-apiserver", f"--etcd-servers=http://127.0.0.1:{self._etcd}",
            "--bind-address=127.0.0.1", f"--secure-port={self._port}",
            f"--cert-dir={self._folder}", "--advertise-address=10.99.0.1",
            "--endpoint-reconciler-type=none", "--service-cluster-ip-range=10.96.0.0/16",
            f"--token-auth-file={self._folder / 'tokens'}", "--authorization-mode=RBAC",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={key}", f"--service-account-signing-key-file={key}",
            "--profiling=false",
        )  # fmt: skip
        until(self.authority.exists)  # it makes its own certificate at its first start
        with self.cluster("default", patience=Patience(total_s=60)) as cluster:
            cluster.api.text(Call("get", "/readyz", "/readyz"))

    def kill_api(self) -> None:
        """Stop the API server as a crash does."""
        process = self._running.pop("kube-apiserver")
        process.kill()
        process.wait(10)

    def compact(self) -> None:
        """Make etcd forget everything but the newest version of every object."""
        url = f"http://127.0.0.1:{self._etcd}/v3/kv"
        newest = _post(f"{url}/range", {"key": "Lw=="})["header"]["revision"]
        _post(f"{url}/compaction", {"revision": newest, "physical": True})

    def kubeconfig(self, name: str = "admin", **user: str) -> Path:
        """Write a kubeconfig; the administrator's unless it names another user's credentials."""
        cluster = {"server": self.url, "certificate-authority": str(self.authority)}
        context = {"cluster": "c", "user": "u", "namespace": "default"}
        path = self._folder / f"{name}.kubeconfig"
        path.write_text(
            json.dumps(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "clusters": [{"name": "c", "cluster": cluster}],
                    "users": [{"name": "u", "user": user or {"token": ADMIN}}],
                    "contexts": [{"name": "x", "context": context}],
                    "current-context": "x",
                }
            )
        )
        return path

    def cluster(self, namespace: str, *, patience: Patience | None = None) -> KubernetesCluster:
        """Return the adapter with every right."""
        return connect(namespace=namespace, kubeconfig=str(self.kubeconfig()), patience=patience)

    def stop(self) -> None:
        """Stop both."""
        for process in reversed(self._running.values()):
            process.kill()
            process.wait(10)

    def _spawn(self, name: str, *arguments: str) -> None:
        with (self._folder / f"{name}.log").open("ab") as log:
            command = [str(self._binaries[name]), *arguments]
            self._running[name] = subprocess.Popen(command, stdout=log, stderr=log)


@contextmanager
def control_plane(
    binaries: dict[str, Path],
    folder: Path,
    crds: Sequence[tuple[str, str]] = (GATEWAY_API, KSERVE),
) -> Iterator[ControlPlane]:
    """Run a control plane that knows HTTPRoutes and InferenceServices, or what it is told.

    Args:
        binaries: Where `etcd` and `kube-apiserver` lie.
        folder: For everything they write.
        crds: Module and file of each definition.
    """
    plane = ControlPlane(binaries, folder)
    try:
        plane.start()
        with plane.cluster("default") as cluster:
            _install(cluster, crds)
        yield plane
    finally:
        plane.stop()


def binaries() -> dict[str, Path] | None:
    """Return the two binaries, of the cache or on the PATH; None if there are none."""
    try:
        version = go("env", "GOVERSION", module="kserve")
        of_cache = {binary.name: built(binary, version) for binary in BINARIES}
    except BuildError:
        of_cache = {}
    found = {}
    for name in ("etcd", "kube-apiserver"):
        cached, on_path = of_cache.get(name), shutil.which(name)
        if cached is not None and cached.exists():
            found[name] = cached
        elif on_path is not None:
            found[name] = Path(on_path)
    return found if len(found) == 2 else None


def established(cluster: KubernetesCluster, name: str) -> bool:
    """Return whether a CustomResourceDefinition is served."""
    found = cluster.get("CustomResourceDefinition", name)
    conditions = (found or {}).get("status", {}).get("conditions") or []
    return any(c["type"] == "Established" and c["status"] == "True" for c in conditions)


def until(done: Callable[[], object], *, within_s: float = 30.0) -> None:
    """Wait until `done()` is true.

    Raises:
        LifecycleError: It did not become true in time.
    """
    deadline, never = time.monotonic() + within_s, threading.Event()
    while not done():
        if time.monotonic() > deadline:
            raise LifecycleError(f"not done in {within_s:.0f} s: {done}")
        never.wait(0.05)


def _install(cluster: KubernetesCluster, crds: Sequence[tuple[str, str]]) -> None:
    import yaml

    for module, file in crds:
        text = (module_folder(module, module="kserve") / "config" / "crd" / file).read_text()
        crd: Object = yaml.load(text, Loader=yaml.CSafeLoader)
        cluster.create(crd)
        name = crd["metadata"]["name"]
        until(partial(established, cluster, name), within_s=90.0)  # a large one, a busy machine


def _post(url: str, body: Object) -> Object:
    import httpx

    found: Object = httpx.post(url, json=body, trust_env=False).raise_for_status().json()
    return found


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
