"""How a version's files come into its pod: one init container, which also verifies them.

KServe's pod webhook *appends* its storage-initializer (v0.20.0,
`pkg/webhook/admission/pod/storage_initializer_injector.go`), so no container of ours could run
after it and before the engine; and it mounts `pvc://` without any initializer. But it leaves a pod
alone that has an init container of that name already. So ours has that name: it fetches with
KServe's own library, and verifies, whatever the scheme; no cluster-wide object is needed; and
KServe reports its last words as the InferenceService's `modelStatus.lastFailureInfo`.

KServe then neither mounts the files nor injects credentials: both are written here.
"""

from __future__ import annotations

import json
import re

from penstock.core.errors import ConfigurationError
from penstock.core.manifest import Manifest
from serving.cluster import Object
from serving.kserve.facts import Facts
from serving.manifests import Release

CONTAINER = "storage-initializer"
IMAGE = "penstock-storage-python"
COMMAND = ("python3", "-m", "registry.bring")
MODEL_DIR = "/mnt/models"
"""Where every runtime of KServe expects the files."""

USER = 10001
"""Of Penstock's images."""

_LEAST = {"cpu": "100m", "memory": "256Mi"}
_VOLUME = "penstock-model"
_SCRATCH = "penstock-scratch"
_LARGEST_ARGUMENT = 100_000  # Linux takes 128 KiB; the rest of the object needs room too
_HF = re.compile(r"hf://([\w.-]+/[\w.-]+)[@:]([\w.-]+)")
_S3 = re.compile(r"s3://[^/]+/.+")
_PVC = re.compile(r"pvc://([a-z0-9.-]+)/(.+)")
_FORMS = (
    "allowed: hf://ORG/NAME:REVISION, s3://BUCKET/PREFIX/ROOT, pvc://CLAIM/PATH/ROOT, where ROOT "
    "is the root digest's hex digits"
)

RESTRICTED: Object = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "readOnlyRootFilesystem": True,
    "runAsNonRoot": True,
    "runAsUser": USER,
    "seccompProfile": {"type": "RuntimeDefault"},
}
"""What the Pod Security Standard `restricted` wants of a container, and a read-only image."""


def storage_uri(release: Release) -> str:
    """Return where the files are, as KServe writes it; no two versions' checkpoints share one.

    Raises:
        ConfigurationError: Not a place that pods can fetch from, or not named by its content.
    """
    uri = release.storage_uri.rstrip("/")
    if found := _HF.fullmatch(uri):
        return f"hf://{found[1]}:{found[2]}"
    if not (_S3.fullmatch(uri) or _PVC.fullmatch(uri)):
        raise ConfigurationError(f"a cluster cannot fetch {release.storage_uri!r}; {_FORMS}")
    if uri.rpartition("/")[2] != release.root.hex:
        raise ConfigurationError(
            f"{release.storage_uri}: not named by its root digest {release.root.hex}; {_FORMS}",
            hint="publish the checkpoint there: registry.publish names it so",
        )
    return uri


def scratch_mounts() -> list[Object]:
    """Return mounts for a container whose image is read-only: `/tmp` can be written."""
    return [{"name": _SCRATCH, "mountPath": "/tmp"}]  # noqa: S108 - of a container of its own


def model_mount(release: Release) -> Object:
    """Return the engine's mount of the files; it cannot write there."""
    return _mount(storage_uri(release), read_only=True)


def volumes(release: Release) -> list[Object]:
    """Return what the mounts name."""
    claim = _PVC.fullmatch(storage_uri(release))
    source: Object = (
        {"persistentVolumeClaim": {"claimName": claim[1], "readOnly": True}}
        if claim
        else {"emptyDir": {}}
    )
    return [{"name": _VOLUME, **source}, {"name": _SCRATCH, "emptyDir": {}}]


def on_disk(release: Release, manifest: Manifest | None) -> Manifest | None:
    """Return what a pod fetches to its node's disk, if known; a claim has its own."""
    return None if _PVC.fullmatch(storage_uri(release)) else manifest


def init_container(release: Release, facts: Facts, manifest: Manifest | None = None) -> Object:
    """Return what fetches and verifies before the engine starts.

    Args:
        release: Whose files; its root digest is what decides.
        facts: The cluster.
        manifest: Which files they are. With it a wrong file can be named, and only these are
            fetched; without it the one that was published beside the files is used, and files of
            the Hub are judged by their root digest alone.
    """
    uri = storage_uri(release)
    container: Object = {
        "name": CONTAINER,
        "image": facts.image(IMAGE),
        "command": list(COMMAND),
        "args": [f"--root={release.root}", *_listed(manifest), uri, MODEL_DIR],
        "env": _env(facts),
        "resources": {
            "requests": dict(_LEAST),  # a pod is placed by its hungriest container
            "limits": facts.storage.resources.to_object()["limits"],
        },
        "securityContext": RESTRICTED,
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [_mount(uri, read_only=uri.startswith("pvc://")), *scratch_mounts()],
    }
    if facts.storage.secret:
        container["envFrom"] = [{"secretRef": {"name": facts.storage.secret}}]
    return container


def _mount(uri: str, *, read_only: bool) -> Object:
    mount: Object = {"name": _VOLUME, "mountPath": MODEL_DIR}
    if read_only:
        mount["readOnly"] = True
    if claim := _PVC.fullmatch(uri):
        mount["subPath"] = claim[2]
    return mount


def _listed(manifest: Manifest | None) -> list[str]:
    if manifest is None:
        return []
    text = json.dumps(json.loads(manifest.to_json()), separators=(",", ":"))
    return [f"--manifest={text}"] if len(text) <= _LARGEST_ARGUMENT else []


def _env(facts: Facts) -> list[Object]:
    storage = facts.storage
    values = {
        "HOME": "/tmp",  # noqa: S108 - of a container of its own
        "HF_ENDPOINT": storage.hub_endpoint,
        "AWS_ENDPOINT_URL": storage.s3_endpoint,
        "AWS_DEFAULT_REGION": storage.s3_region,
    }
    return [{"name": name, "value": value} for name, value in values.items() if value]
