"""Where the storage tests take place: a namespace, S3, a mirror of the Hub, a claim."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from penstock.core.identity import ModelRef
from penstock.core.manifest import Manifest
from serving.cluster import Object
from serving.kserve.facts import Facts, Resources, Storage
from serving.kube import KubernetesCluster
from tests.cluster.places import NODE_IP, Place
from tests.cluster.waiting import until

KEYS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}
CLAIM = "weights"
_HUB_PORT = 9321


@dataclass(frozen=True, slots=True)
class World:
    """One namespace, and how its pods reach checkpoints."""

    cluster: KubernetesCluster
    facts: Facts

    def pods(self, service: str) -> list[Object]:
        """Return an InferenceService's pods."""
        label = "serving.kserve.io/inferenceservice"
        return [
            pod
            for pod in self.cluster.list("Pod")
            if pod["metadata"].get("labels", {}).get(label) == service
        ]


def facts(namespace: str, s3: str) -> Facts:
    """Return the test cluster as pods of a namespace see it."""
    return Facts(
        namespace=namespace,
        storage=Storage(
            hub_endpoint=f"http://{NODE_IP}:{_HUB_PORT}",
            s3_endpoint=s3,
            s3_region="us-east-1",
            secret="storage-keys",
            resources=Resources("500m", "1Gi"),
        ),
        registry="localhost",
        runtime_class="penstock-host-python",
        cpu=Resources("500m", "1Gi"),
        drain_s=1,
    )


def secret() -> Object:
    """Return the Secret that the facts name."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "storage-keys"},
        "stringData": KEYS,
    }


@contextmanager
def hub(root: Path) -> Iterator[str]:
    """Serve repositories on the node's address: a process of its own, as pods come from outside."""
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from aiohttp import web\n"
        "from registry.mirror import application\n"
        "root, host, port = sys.argv[1:]\n"
        "web.run_app(application(Path(root)), host=host, port=int(port), print=None)\n"
    )
    command = [sys.executable, "-c", code, str(root), NODE_IP, str(_HUB_PORT)]
    process = subprocess.Popen(command)
    url = f"http://{NODE_IP}:{_HUB_PORT}"
    try:
        until("the Hub's mirror", lambda: _answers(url))
        yield url
    finally:
        process.terminate()
        process.wait(10)


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/api/models/none/none", trust_env=False).status_code > 0
    except httpx.HTTPError:
        return False


def claim(place: Place, namespace: str) -> Path:
    """Make a claim; return where its files lie on the node."""

    def kubectl(*command: str, given: str | None = None) -> str:
        program = [str(place.binaries / "kubectl"), f"--kubeconfig={place.kubeconfig}"]
        done = subprocess.run(
            [*program, f"-n{namespace}", *command],
            input=given, capture_output=True, text=True, check=True,
        )  # fmt: skip
        return done.stdout

    body: Object = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": CLAIM},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "100Mi"}},
        },
    }
    kubectl("apply", "-f-", given=json.dumps(body))
    kubectl("wait", f"pvc/{CLAIM}", "--for=jsonpath={.status.phase}=Bound", "--timeout=60s")
    volume = kubectl("get", "pvc", CLAIM, "-ojsonpath={.spec.volumeName}")
    return Path(kubectl("get", "pv", volume, "-ojsonpath={.spec.hostPath.path}"))


def of_hub(manifest: Manifest, repository: str) -> Manifest:
    """Return a manifest whose source is a repository of the mirror."""
    return Manifest(ModelRef.parse(f"hf://{repository}@main"), manifest.files)
