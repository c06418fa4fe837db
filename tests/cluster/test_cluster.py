"""The cluster itself: what tests of Penstock rely on when one of them fails."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from registry.s3 import S3Access, client
from serving.cluster import Object
from tests.cluster.conftest import Running
from tests.cluster.waiting import until

pytestmark = [pytest.mark.cluster, pytest.mark.enable_socket]
pytest.importorskip("boto3", reason="extra cluster: pip install 'penstock[cluster]'")

BUSYBOX = "localhost/busybox:1"
Kubectl = Callable[..., str]


@pytest.fixture
def kubectl(cluster: Running, namespace: str) -> Kubectl:
    """kubectl in the test's own namespace."""

    def run(*words: str, given: Object | None = None) -> str:
        program = ["kubectl", f"--kubeconfig={cluster.kubeconfig}", f"-n{namespace}"]
        body = json.dumps(given) if given else None
        return subprocess.run(
            [*program, *words], input=body, check=True, capture_output=True, text=True
        ).stdout

    return run


def pod(name: str, command: str, *, image: str = BUSYBOX, **spec: Any) -> Object:
    """Return a pod that runs a shell command; keywords named `container_…` are its container's."""
    inner = {key[10:]: spec.pop(key) for key in list(spec) if key.startswith("container_")}
    container = {"name": "main", "image": image, "command": ["sh", "-c", command], **inner}
    spec = {"restartPolicy": "Never", "terminationGracePeriodSeconds": 0, **spec}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {**spec, "containers": [container]},
    }


def started(kubectl: Kubectl, given: Object, phase: str = "Running") -> str:
    """Create a pod, wait until it is in a phase, and return its name."""
    name = str(given["metadata"]["name"])
    kubectl("create", "-f-", given=given)
    kubectl("wait", f"pod/{name}", f"--for=jsonpath={{.status.phase}}={phase}", "--timeout=120s")
    return name


def test_a_pod_finds_services_by_name_and_its_logs_are_read(kubectl: Kubectl) -> None:
    asks = pod("asks", "nslookup kubernetes.default.svc.cluster.local")
    said = kubectl("logs", started(kubectl, asks, "Succeeded"))
    assert "10.96.0.1" in said


def test_two_gpus_are_given_and_a_third_is_refused(kubectl: Kubectl) -> None:
    def wants(name: str, gpus: int) -> Object:
        limits = {"limits": {"nvidia.com/gpu": str(gpus)}}
        return pod(name, "sleep 3600", container_resources=limits)

    started(kubectl, wants("first", 1))
    started(kubectl, wants("second", 1))
    third = started(kubectl, wants("third", 1), "Pending")
    reason = "-ojsonpath={.status.conditions[?(@.type=='PodScheduled')].message}"
    until("a reason", lambda: "Insufficient nvidia.com/gpu" in kubectl("get", "pod", third, reason))


def test_the_store_returns_what_was_put(cluster: Running, namespace: str) -> None:
    s3 = client(S3Access(cluster.s3, "us-east-1", "key", "secret"))
    s3.create_bucket(Bucket=namespace)
    s3.put_object(Bucket=namespace, Key="a/b", Body=b"content")
    assert s3.get_object(Bucket=namespace, Key="a/b")["Body"].read() == b"content"


def test_prometheus_reads_an_annotated_pod(
    cluster: Running, namespace: str, kubectl: Kubectl
) -> None:
    page = "mkdir /tmp/www && echo 'smoke_signals 42' > /tmp/www/metrics"
    serving = pod("serving", f"{page} && exec httpd -f -p 8080 -h /tmp/www")
    serving["metadata"]["annotations"] = {"prometheus.io/scrape": "true"}
    started(kubectl, serving)

    def value() -> list[str]:
        asked = {"query": f'smoke_signals{{namespace="{namespace}",pod="serving"}}'}
        url = f"{cluster.prometheus}/api/v1/query"
        answer = httpx.get(url, params=asked, trust_env=False).raise_for_status().json()
        return [series["value"][1] for series in answer["data"]["result"]]

    until("the pod's number", lambda: value() == ["42"])


def test_kserves_webhook_looks_at_an_llm_inference_service(kubectl: Kubectl) -> None:
    def served(**spec: Any) -> Object:
        return {
            "apiVersion": "serving.kserve.io/v1alpha2",
            "kind": "LLMInferenceService",
            "metadata": {"name": "m"},
            "spec": {"model": {"uri": "hf://a/b", "name": "m"}, **spec},
        }

    kubectl("create", "--dry-run=server", "-f-", given=served())
    both = served(parallelism={"pipeline": 2, "data": 2, "dataLocal": 1})
    with pytest.raises(subprocess.CalledProcessError) as refused:
        kubectl("create", "--dry-run=server", "-f-", given=both)
    assert "cannot set both pipeline parallelism and data parallelism" in refused.value.stderr


def test_any_registrys_image_comes_from_the_local_one(kubectl: Kubectl) -> None:
    image = {"image": "ghcr.io/busybox:1", "container_imagePullPolicy": "Always"}
    said = kubectl("logs", started(kubectl, pod("pulled", "echo here", **image), "Succeeded"))
    assert said == "here\n"


def test_a_container_that_is_killed_starts_again(kubectl: Kubectl, namespace: str) -> None:
    marked = f"while :; do sleep 60; done # {namespace}"
    name = started(kubectl, pod("restarted", marked, restartPolicy="Always"))
    assert marked in kubectl("exec", name, "--", "cat", "/proc/1/cmdline")
    (process,) = [
        int(path.parent.name)
        for path in Path("/proc").glob("[0-9]*/cmdline")
        if path.read_bytes() == b"\0".join([b"sh", b"-c", marked.encode(), b""])
    ]
    os.kill(process, signal.SIGKILL)  # a pod is a process of this machine
    counted = "-ojsonpath={.status.containerStatuses[0].restartCount}"
    until("the restart", lambda: kubectl("get", "pod", name, counted) == "1")


def test_a_claims_files_outlive_a_pod(kubectl: Kubectl) -> None:
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "kept"},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Mi"}},
        },
    }
    kubectl("create", "-f-", given=claim)
    mounted: dict[str, Any] = {
        "volumes": [{"name": "kept", "persistentVolumeClaim": {"claimName": "kept"}}],
        "container_volumeMounts": [{"name": "kept", "mountPath": "/kept"}],
    }
    writer = started(kubectl, pod("writer", "echo kept > /kept/file", **mounted), "Succeeded")
    kubectl("delete", "pod", writer)
    reader = started(kubectl, pod("reader", "cat /kept/file", **mounted), "Succeeded")
    assert kubectl("logs", reader) == "kept\n"
