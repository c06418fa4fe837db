"""An object as a file that people review: the same object is the same bytes. No I/O.

A rollout's record has times and evidence in it, and changes with every look. It does not lie in
the manifest but beside it, and is committed with it: so one commit holds weights and record, as
one write does on a cluster, and `git revert` takes both back.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import yaml

from penstock.core.errors import ConfigurationError
from serving.cluster import Object
from serving.controller import PREVIOUS, RECORD

KUSTOMIZATION = "kustomization.yaml"
_HEADER = "# Written by Penstock; docs/gitops.md\n"
_KEPT = ("name", "namespace", "labels", "annotations")
"""Of `metadata`; API server and controllers add the rest."""

_KUBECTL = "kubectl.kubernetes.io/last-applied-configuration"
"""What kubectl notes on whatever it applies."""


def file_of(kind: str, name: str) -> str:
    """Return the name of an object's file; it never changes."""
    return f"{kind.lower()}-{name}.yaml"


def stated(obj: Object) -> Object:
    """Return what a person would state of an object: without what servers and rollouts add."""
    metadata = {key: obj["metadata"][key] for key in _KEPT if obj["metadata"].get(key)}
    if "annotations" in metadata:
        every = metadata.pop("annotations")
        left = {k: v for k, v in every.items() if k != _KUBECTL and not of_rollout(k)}
        metadata |= {"annotations": left} if left else {}
    rest = {key: value for key, value in obj.items() if key not in ("metadata", "status")}
    return {**rest, "metadata": metadata}


def of_rollout(annotation: str) -> bool:
    """Return whether an annotation belongs to a rollout: its record, policy, snapshot, epoch."""
    return annotation.startswith(RECORD) or annotation == PREVIOUS


def record_text(obj: Object) -> str:
    """Return the rollout's annotations as a document; empty where there are none."""
    annotations = obj["metadata"].get("annotations", {})
    found = {key: annotations[key] for key in sorted(annotations) if of_rollout(key)}
    return json.dumps(found, indent=1) + "\n" if found else ""


def with_record(obj: Object, text: str) -> Object:
    """Return the object with the annotations of `record_text`."""
    if not text:
        return obj
    annotations = {**obj["metadata"].get("annotations", {}), **json.loads(text)}
    return {**obj, "metadata": {**obj["metadata"], "annotations": annotations}}


def to_text(obj: Object) -> str:
    """Return an object's file; `from_text(to_text(o)) == stated(o)`."""
    return _HEADER + yaml.dump(stated(obj), Dumper=_Plain, sort_keys=True, width=100)


def from_text(text: str, where: str) -> Object:
    """Read a file.

    Args:
        text: Its content.
        where: Its name, for errors.

    Raises:
        ConfigurationError: It holds no object, or not one of that name.
    """
    try:
        obj = yaml.safe_load(text)
        expected = file_of(obj["kind"], obj["metadata"]["name"])
    except (yaml.YAMLError, KeyError, TypeError, AttributeError) as problem:
        raise _unreadable(where, f"{type(problem).__name__}: {problem}") from problem
    if expected != where.rpartition("/")[2]:
        raise _unreadable(where, f"its object belongs into {expected}")
    return dict(obj)


def kustomization(files: Iterable[str]) -> str:
    """Return the file by which `kubectl apply -k`, Argo CD and Flux find the others."""
    body = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": sorted(files),
    }
    return _HEADER + yaml.dump(body, Dumper=_Plain, sort_keys=True)


def ours(text: str) -> bool:
    """Return whether Penstock wrote a `kustomization.yaml`."""
    return text.startswith(_HEADER)


def _unreadable(where: str, why: str) -> ConfigurationError:
    return ConfigurationError(
        f"{where}: {' '.join(why.split())}",
        hint="a file holds the one object that it is named after; git checkout brings it back",
    )


class _Plain(yaml.SafeDumper):
    """Without anchors: what stands twice is written twice."""

    def ignore_aliases(self, _data: Any) -> bool:
        return True
