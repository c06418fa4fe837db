"""KServe's own mechanism, `spec.canary[]`: one InferenceService per name, the candidate inside it.

```
predictor: v1                  predictor: v1                    predictor: v2
                 → candidate   canary: [v2, 0 … 100 %]  → promoted
```

**KServe 0.20 deploys `spec.canary` and sends it no traffic**: its HTTPRoute keeps 100 % on the
stable version, without a word (the split, kserve#5912, came after it). The CRD does not show that;
`split` does, by effect. So these objects are written and admitted, and `target.kserve.mode:
standard` is refused until a cluster splits.

Traps that these functions answer (v0.20.0): a canary's `model.name` must be there, and empty; it
may have no `maxReplicas`; what it leaves out is the stable version's (`buildCanaryPredictor`), so
what is promoted is merged the same way, or its pods would be restarted; at 0 % it has no pods
unless `minReplicas` says so, and what it has is taken from the stable version's. A predictor's name
changes only together with its `storageUri`. Annotations of the InferenceService reach all pods, so
what differs between versions, and every snapshot, must lie elsewhere.
"""

from __future__ import annotations

import math
from typing import Any

from penstock.core.checks import Check
from penstock.core.manifest import Manifest
from penstock.core.spec import ModelSpec
from serving.cluster import Object
from serving.kserve import inference_service as one_version
from serving.kserve.facts import Facts
from serving.manifests import NAME, ROOT, VERSION, Release

_REPLICAS = ("minReplicas", "maxReplicas")


def inference_service(
    spec: ModelSpec, release: Release, facts: Facts, manifest: Manifest | None = None
) -> Object:
    """Return the InferenceService of a name, with one version. KServe makes its HTTPRoute."""
    obj = one_version.inference_service(spec, release, facts, manifest)
    metadata, version = obj["metadata"], str(release.version)
    annotations = {key: text for key, text in metadata["annotations"].items() if key != ROOT}
    own = {
        "name": f"v{version}",
        "labels": {VERSION: version},
        "annotations": {ROOT: str(release.root)},
    }
    return {
        **obj,
        "metadata": {
            **metadata,
            "name": spec.name,
            "labels": {NAME: spec.name},
            "annotations": annotations,
        },
        "spec": {"predictor": {**own, **obj["spec"]["predictor"]}},
    }


def snapshot(obj: Object) -> Object:
    """Return what it takes to serve the stable version again, with `with_candidate`."""
    predictor: Object = obj["spec"]["predictor"]
    return predictor


def with_candidate(obj: Object, predictor: Object) -> Object:
    """Return the InferenceService with a candidate at 0 %; one that is there already goes.

    Args:
        obj: As it is.
        predictor: The candidate, as `snapshot` has it; another name than the stable version's.
    """
    fixed = {key: value for key, value in predictor.items() if key not in _REPLICAS}
    model = {**predictor["model"], "name": ""}
    return _canary(obj, [{"predictor": {**fixed, "model": model}, "trafficPercent": 0}], 0)


def with_weight(obj: Object, percent: int) -> Object:
    """Return the InferenceService with another share for its candidate."""
    return _canary(obj, obj["spec"]["canary"], percent)


def weights_of(obj: Object) -> dict[str, int]:
    """Return predictor's name to share, as the spec has them: what routes is told by `split`."""
    canary = obj["spec"].get("canary") or []
    shares = {each["predictor"]["name"]: int(each["trafficPercent"]) for each in canary}
    return {obj["spec"]["predictor"].get("name", ""): 100 - sum(shares.values()), **shares}


def promoted(obj: Object) -> Object:
    """Return the InferenceService with the candidate as its stable version; no pod is restarted."""
    (canary,) = obj["spec"]["canary"]
    stable = obj["spec"]["predictor"]
    merged = _merged(stable, canary["predictor"])
    merged["model"] = {key: value for key, value in merged["model"].items() if key != "name"}
    merged.update({key: stable[key] for key in _REPLICAS if key in stable})
    return _without_canary({**obj, "spec": {**obj["spec"], "predictor": merged}})


def rolled_back(obj: Object) -> Object:
    """Return the InferenceService without its candidate, whose pods are removed."""
    return _without_canary(obj)


def candidate_ready(obj: Object) -> bool:
    """Return whether there is a candidate with a pod that serves; `Ready` says nothing of it."""
    names = {each["predictor"]["name"] for each in obj["spec"].get("canary") or []}
    statuses = obj.get("status", {}).get("canaryStatuses", [])
    return bool(names) and names <= {each["name"] for each in statuses if each.get("ready")}


def split(obj: Object, route: Object) -> Check:
    """Return whether KServe splits traffic, told by what it routes.

    Args:
        obj: An InferenceService whose candidate has a share, and is ready.
        route: KServe's HTTPRoute of it, which has its name.
    """
    wanted = {
        service_of(obj["metadata"]["name"], name): share for name, share in weights_of(obj).items()
    }
    found = {
        ref["name"]: int(ref.get("weight", 1))
        for rule in route["spec"].get("rules", [])
        for ref in rule.get("backendRefs", [])
    }
    missing = sorted(name for name, share in wanted.items() if share and not found.get(name))
    return Check(
        "split of spec.canary",
        not missing,
        f"{route['metadata']['name']} leads to {_told(found)}"
        if not missing
        else f"HTTPRoute {route['metadata']['name']} leads to {_told(found)}, and not to "
        f"{', '.join(missing)}: this KServe deploys spec.canary and sends it no traffic "
        "(kserve#5912 came after 0.20)",
        "leave target.kserve.mode at auto: mode route works with every KServe",
    )


def service_of(name: str, predictor: str) -> str:
    """Return the Service of one version; who is not Penstock may leave its name empty."""
    return "-".join(filter(None, (name, predictor, "predictor")))


def _canary(obj: Object, canary: list[Object], percent: int) -> Object:
    """Return the InferenceService with one candidate, its share and the pods that it needs."""
    (only,) = canary
    replicas = int(obj["spec"]["predictor"].get("minReplicas", 1))
    fewest = max(1, math.ceil(replicas * percent / 100))
    entry = {
        "predictor": {**only["predictor"], "minReplicas": fewest},
        "trafficPercent": percent,
    }
    return {**obj, "spec": {**obj["spec"], "canary": [entry]}}


def _without_canary(obj: Object) -> Object:
    spec = {key: value for key, value in obj["spec"].items() if key != "canary"}
    return {**obj, "spec": spec}


def _merged(stable: Any, canary: Any) -> Any:
    """Return what KServe makes of both (mergo, WithOverride): lists whole, nothing empty wins."""
    if isinstance(stable, dict) and isinstance(canary, dict):
        return {
            key: _merged(stable.get(key), canary.get(key))
            for key in dict.fromkeys([*stable, *canary])
        }
    return stable if canary in (None, "", 0, False, [], {}) and stable is not None else canary


def _told(shares: Object) -> str:
    return ", ".join(f"{name} ({share})" for name, share in sorted(shares.items())) or "nothing"
