"""Knative and KServe's Knative mode, as far as revisions and shares go; both are faked.

As KServe v0.20.0 writes traffic (`createKnativeService`) and reads status (`PropagateStatus`), and
as Knative resolves `latestRevision`. tests/cluster/test_knative.py holds both against the real
KServe.
"""

from __future__ import annotations

import copy
import json
from typing import Any

from serving.cluster import Object


def shares(targets: list[Object], latest_ready: str) -> list[Object]:
    """Return the status of a Knative Service's traffic for what its spec has.

    Args:
        targets: `spec.traffic`.
        latest_ready: The newest revision that is ready.
    """
    found = []
    for each in targets:
        name = latest_ready if each.get("latestRevision") else each["revisionName"]
        url = {"url": f"http://{each['tag']}-chat"} if each.get("tag") else {}
        found.append({**each, "revisionName": name, **url})
    return found


class Knative:
    """One InferenceService in Knative mode."""

    def __init__(self, obj: Object) -> None:
        self.obj = obj
        self.revisions = 0
        self._ready = ""
        self._template = ""
        self.write(obj)

    def write(self, obj: Object) -> None:
        """Take over a spec; a new template is a new revision, which is not ready yet."""
        generation = self.obj["metadata"].get("generation", 0) + 1
        self.obj = copy.deepcopy({**obj, "metadata": {**obj["metadata"], "generation": generation}})
        predictor = self.obj["spec"]["predictor"]
        template = json.dumps(
            {k: v for k, v in predictor.items() if k != "canaryTrafficPercent"}, sort_keys=True
        )
        if template != self._template:
            self._template, self.revisions = template, self.revisions + 1
        self._reconcile()

    def ready(self) -> None:
        """Make the newest revision ready."""
        self._ready = self._name(self.revisions)
        self._reconcile()

    def _reconcile(self) -> None:
        """Both controllers look until nothing changes any more."""
        for _ in range(3):
            self._status(self._traffic())

    def _traffic(self) -> list[Object]:
        percent = self.obj["spec"]["predictor"].get("canaryTrafficPercent")
        last = self._seen.get("latestRolledoutRevision")
        if percent is None or not last:
            return [{"latestRevision": True, "percent": 100, "tag": "latest"}]
        latest = {"latestRevision": True, "percent": percent, "tag": "latest"}
        before = {"revisionName": last, "percent": 100 - percent, "tag": "prev"}
        return [latest, *([before] if percent < 100 else [])]

    def _status(self, targets: list[Object]) -> None:
        seen: dict[str, Any] = dict(self._seen)
        seen["latestCreatedRevision"] = self._name(self.revisions)
        if self._ready:
            traffic = shares(targets, self._ready)
            for each in traffic:
                if each["revisionName"] != self._ready or not each.get("latestRevision"):
                    continue
                whole = sum(t["percent"] for t in traffic if t["revisionName"] == self._ready)
                if seen.get("latestRolledoutRevision") != self._ready:
                    if each["percent"] == 100:
                        seen["previousRolledoutRevision"] = seen.get("latestRolledoutRevision", "")
                        seen["latestRolledoutRevision"] = self._ready
                    continue
                split = each["percent"] < 100 and whole == 100
                newest = self._ready == seen["latestCreatedRevision"]
                if split and newest and seen.get("previousRolledoutRevision"):
                    seen["latestRolledoutRevision"] = seen["previousRolledoutRevision"]
            seen |= {"latestReadyRevision": self._ready, "traffic": traffic}
        self.obj["status"] = {
            "observedGeneration": self.obj["metadata"]["generation"],
            "components": {"predictor": seen},
        }

    @property
    def _seen(self) -> Object:
        found: Object = self.obj.get("status", {}).get("components", {}).get("predictor", {})
        return found

    def _name(self, number: int) -> str:
        return f"{self.obj['metadata']['name']}-{number:05d}"
