"""KServe's Knative mode: one InferenceService per name, its versions are Knative's revisions.

```
predictor: v1        predictor: v2             predictor: v2                predictor: v2
               →     canaryTrafficPercent: 0 → canaryTrafficPercent: N  →   (no percentage)
               begun                         ramped, once v2 is ready       promoted
```

Traps that these functions answer (read in KServe v0.20.0 and Knative Serving v0.48.1, and tried on
the real KServe controller with a Knative that was faked: tests/cluster/test_knative.py):

* A percentage means the latest revision *that is ready*. Raised before the new one is ready, it
  goes to whoever was refused before (kserve#2130): `with_weight` refuses until `candidate_ready`.
* A status may be of the time before a write, and its `observedGeneration` is the Knative Service's,
  not this object's: a candidate carries the name of the revision that was newest before it.
* What is not the candidate's goes to `latestRolledoutRevision`, the last that had everything.
* A percentage without another template is a roll back of what was promoted, one step.
* After a roll back the refused template stays in the spec, at 0 %; the next candidate replaces it.
* Any edit of the template, also of a label or annotation, is another revision. So annotations are
  complete from the beginning; a later change of tag routing would make one.
* Knative knows neither `preStop` nor a grace period, and refuses init containers, pod security
  contexts, tolerations and affinity unless `config-features` allows them: `features`.
* A request lasts `max-revision-timeout-seconds` at most, 600 unless the cluster says otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from penstock.core.checks import Check
from penstock.core.errors import NotReady
from penstock.core.manifest import Manifest
from penstock.core.spec import ModelSpec
from serving.cluster import Object
from serving.kserve import inference_service as one_version
from serving.kserve.facts import Facts
from serving.manifests import NAME, ROOT, VERSION, Release

REQUEST_S = 600
"""Longest request, as Knative's defaults allow it."""

AFTER = "penstock.dev/after"
"""On a candidate's pods: the revision that was the newest before it."""

_ANNOTATIONS = {
    "serving.kserve.io/deploymentMode": "Knative",
    "serving.kserve.io/enable-tag-routing": "true",  # the candidate has a URL of its own, at 0 %
}
_NOT_HERE = ("serving.kserve.io/autoscalerClass",)
"""Knative scales."""

_FEATURES = {
    "initContainers": "kubernetes.podspec-init-containers",
    "securityContext": "kubernetes.podspec-securitycontext",
    "tolerations": "kubernetes.podspec-tolerations",
    "affinity": "kubernetes.podspec-affinity",
    "nodeSelector": "kubernetes.podspec-nodeselector",
    "runtimeClassName": "kubernetes.podspec-runtimeclassname",
    "topologySpreadConstraints": "kubernetes.podspec-topologyspreadconstraints",
}


def inference_service(
    spec: ModelSpec, release: Release, facts: Facts, manifest: Manifest | None = None
) -> Object:
    """Return the InferenceService of a name, with one version that gets all traffic."""
    obj = one_version.inference_service(spec, release, facts, manifest)
    metadata, predictor = obj["metadata"], dict(obj["spec"]["predictor"])
    predictor.pop("terminationGracePeriodSeconds", None)
    predictor["timeout"] = REQUEST_S
    predictor["model"] = {k: v for k, v in predictor["model"].items() if k != "lifecycle"}
    own = {
        "labels": {VERSION: str(release.version)},
        "annotations": {ROOT: str(release.root)},
    }
    kept = {k: v for k, v in metadata["annotations"].items() if k not in (ROOT, *_NOT_HERE)}
    return {
        **obj,
        "metadata": {
            **metadata,
            "name": spec.name,
            "labels": {NAME: spec.name},
            "annotations": {**kept, **_ANNOTATIONS},
        },
        "spec": {"predictor": {**own, **predictor}},
    }


def snapshot(obj: Object) -> Object:
    """Return what it takes to serve the version in the spec again, with `with_candidate`."""
    return {k: v for k, v in obj["spec"]["predictor"].items() if k != "canaryTrafficPercent"}


def with_candidate(obj: Object, predictor: Object) -> Object:
    """Return the InferenceService with a candidate at 0 %: template and percentage in one write.

    Args:
        obj: As it is.
        predictor: The candidate, as `snapshot` has it; another template than the one in the spec.
    """
    newest = str(status_of(obj).get("latestCreatedRevision", ""))
    annotations = {**predictor.get("annotations", {}), AFTER: newest}
    return _spec(obj, {**predictor, "annotations": annotations, "canaryTrafficPercent": 0})


def with_weight(obj: Object, percent: int) -> Object:
    """Return the InferenceService with another share for its candidate.

    Raises:
        NotReady: The percentage would go to another revision than the candidate's.
    """
    if percent and not candidate_ready(obj):
        seen = status_of(obj)
        raise NotReady(
            obj["metadata"]["name"],
            reason=f"{percent} % would go to {seen.get('latestReadyRevision', 'nobody')}, the "
            f"latest that is ready, and not to {seen.get('latestCreatedRevision', 'it')}",
            waited_s=0.0,
            hint=f"kubectl describe revision {seen.get('latestCreatedRevision', '')}".rstrip(),
        )
    return _spec(obj, {**obj["spec"]["predictor"], "canaryTrafficPercent": percent})


def promoted(obj: Object) -> Object:
    """Return the InferenceService whose candidate gets everything; no pod is restarted."""
    return _spec(obj, snapshot(obj))


def rolled_back(obj: Object) -> Object:
    """Return the InferenceService whose candidate gets nothing; its template stays in the spec.

    Written after a promotion it goes back from that one, one step, no more: KServe sees a split
    over one revision, and takes the one before.
    """
    return _spec(obj, {**obj["spec"]["predictor"], "canaryTrafficPercent": 0})


def candidate_ready(obj: Object) -> bool:
    """Return whether the revision of the candidate in the spec is there, and ready."""
    after = obj["spec"]["predictor"].get("annotations", {}).get(AFTER)
    seen = status_of(obj)
    created = seen.get("latestCreatedRevision", "")
    another = after is not None and created not in ("", after, seen.get("latestRolledoutRevision"))
    return another and created == seen.get("latestReadyRevision")


def observed(obj: Object) -> dict[str, int]:
    """Return revision to share in percent, as Knative routes; nothing while it does not say."""
    shares: dict[str, int] = {}
    for each in status_of(obj).get("traffic", []):
        name = each.get("revisionName", "")
        shares[name] = shares.get(name, 0) + int(each.get("percent") or 0)
    return shares


def door_of(obj: Object) -> str:
    """Return the URL that reaches the candidate alone, whatever its share; empty without one."""
    tags = {each.get("tag"): each.get("url", "") for each in status_of(obj).get("traffic", [])}
    return str(tags.get("latest", ""))


def features(obj: Object, config: Mapping[str, str]) -> Iterator[Check]:
    """Yield whether Knative lets an InferenceService's pod be as it is.

    Args:
        obj: What `inference_service` returns.
        config: Data of ConfigMap `config-features` in namespace knative-serving.
    """
    for field, feature in _FEATURES.items():
        if not obj["spec"]["predictor"].get(field):
            continue
        setting = config.get(feature, "disabled").lower()
        yield Check(
            f"knative {field}",
            setting != "disabled",
            f"{feature}: {setting}",
            f"kubectl -n knative-serving patch configmap config-features --type=merge "
            f'-p \'{{"data": {{"{feature}": "enabled"}}}}\'',
        )


def status_of(obj: Object) -> Object:
    """Return what KServe tells of the revisions."""
    found: Object = obj.get("status", {}).get("components", {}).get("predictor", {})
    return found


def _spec(obj: Object, predictor: Object) -> Object:
    return {**obj, "spec": {**obj["spec"], "predictor": predictor}}
