"""What a spec may say when pods read it, not this machine. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator

from penstock.core.errors import Mistake, SpecError
from penstock.core.sources import DataRef
from penstock.core.spec import ModelSpec

_HERE = re.compile(r"^https?://(localhost|127\.|\[::1\])")
_REMOTE = "s3://BUCKET/KEY, pvc://CLAIM/FILE=/FOLDER, hf://datasets/ORG/NAME@REVISION/FILE, sql:…"


def check_for_pods(spec: ModelSpec, *, where: str = "model.yaml", pod_paths: bool = False) -> None:
    """Raise `SpecError` where a spec names what pods of a cluster cannot see.

    Args:
        spec: The spec, with relative paths as they were written.
        where: Its name, for messages.
        pod_paths: Whether absolute paths are meant as paths in the pods: of a volume that the
            cluster mounts there, or of the image.
    """
    mistakes = (*_target(spec), *_paths(spec, pod_paths=pod_paths), *_addresses(spec))
    if mistakes:
        raise SpecError(f"{where}, for Kubeflow Pipelines", tuple(mistakes))


def _target(spec: ModelSpec) -> Iterator[Mistake]:
    if spec.target == "local":
        yield Mistake(
            "target",
            "local: a pod that ends would serve it",
            "kserve: {…}, or penstock run for this machine",
        )
    elif spec.target.kserve.context is not None:
        yield Mistake(
            "target.kserve.context",
            f"{spec.target.kserve.context!r}: a pod has no kubeconfig",
            "null: the cluster that the pod runs in",
        )


def _paths(spec: ModelSpec, *, pod_paths: bool) -> Iterator[Mistake]:
    if spec.ref.scheme == "file" and not pod_paths:
        yield Mistake(
            "source", spec.source, "hf://ORG/NAME@REVISION, or --pod-paths if pods have this folder"
        )
    for name, value in spec.data.model_dump().items():
        if value is None or DataRef.parse(value).kind != "file":
            continue
        absolute = DataRef.parse(value).where.startswith("/")
        if not absolute:
            yield Mistake(f"data.{name}", f"{value!r}: a file beside model.yaml", _REMOTE)
        elif not pod_paths:
            yield Mistake(
                f"data.{name}",
                f"{value!r}: a file of this machine",
                f"{_REMOTE}, or --pod-paths if pods have this file",
            )


def _addresses(spec: ModelSpec) -> Iterator[Mistake]:
    if spec.target == "local":
        return
    kserve = spec.target.kserve
    named = {"address": kserve.address, "prometheus": kserve.prometheus}
    for name, value in named.items():
        if value is not None and _HERE.match(value):
            yield Mistake(
                f"target.kserve.{name}",
                f"{value}: in a pod, this is the pod",
                "null, or an address that pods reach",
            )
