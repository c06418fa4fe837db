"""An InferenceService that Penstock did not create becomes the stable version of a name. Pure.

Nothing of it is changed, so no pod is restarted: labels and annotations of an InferenceService are
passed on to its pods (KServe v0.20.0, `buildObjectMeta`). What is made is the name's HTTPRoute, for
the hosts by which users reach it today.

**KServe's own HTTPRoute of it stays**, has the same hosts and matches every path by a regular
expression. Gateway API prefers exact paths to anything else, so ours has the model's paths as
exact ones, and those are split. Everything else goes on to the adopted version by KServe's route,
and to ours once that is gone: it goes with the InferenceService, after the first promotion.

That route has the InferenceService's name, and ours the model's. Where both are the same, ours can
only take its place, once KServe leaves it alone: with the label `cluster-local` it neither writes
nor removes it (v0.20.0, `RawHTTPRouteReconciler.Reconcile`).
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NoReturn

from penstock.core.errors import ConfigurationError
from serving.adoption.closing import closed, is_closed, opened
from serving.adoption.writes import Write
from serving.cluster import Object
from serving.controller import annotated
from serving.kserve import http_route
from serving.kserve.facts import Facts
from serving.kserve.inference_service import LABELS
from serving.kserve.llm_inference_service import PATHS
from serving.manifests import NAME, ready

ADOPTED = "penstock.dev/adopted"
"""On the HTTPRoute: the InferenceService that was adopted."""

_NAMES = ("--model_name", "--model-name", "--served-model-name", "--served_model_name")
_STANDARD = ("Standard", "RawDeployment")
_MODE = "serving.kserve.io/deploymentMode"
_HINT = "docs/how-to/adopt.md says what can be adopted"


@dataclass(frozen=True, slots=True)
class Around:
    """What is there."""

    isvc: Object
    """The InferenceService."""

    own: Object | None
    """KServe's HTTPRoute of it, which has its name."""

    carrier: Object | None
    """The HTTPRoute that has the model's name; may be the same."""


def name_of(isvc: Object) -> str:
    """Return what its engine is told to call the model: its arguments', else its own name.

    KServe's runtimes are told `--model_name={{.Name}}`.
    """
    predictor = isvc["spec"]["predictor"]
    parts = [predictor.get("model", {}), *predictor.get("containers", [])]
    words = [word for part in parts for word in (*part.get("command", []), *part.get("args", []))]
    for word, after in itertools.pairwise([*words, ""]):
        option, given, value = word.partition("=")
        if option in _NAMES:
            return str(value if given else after)
    return str(isvc["metadata"]["name"])


def adopt(around: Around, name: str, facts: Facts) -> list[Write]:
    """Return what is to be written.

    Args:
        around: What is there.
        name: What clients call the model.
        facts: The cluster.

    Raises:
        ConfigurationError: It cannot be adopted, with the reason.
    """
    isvc, carrier = around.isvc, around.carrier
    service = isvc["metadata"]["name"]
    if carrier is not None and _annotations(carrier).get(ADOPTED) == service:
        if is_closed(carrier):
            return [_opening(carrier, service)]
        return [Write("see", carrier, f"{service} is adopted", routed=True)]
    for reason, hint in _against(around, name, facts):
        _refuse(f"{service}: {reason}", hint or _HINT)
    route = _route(around, name, facts)
    if carrier is not None:
        return [Write("replace", _over(carrier, route), f"is {name}'s from now on", routed=True)]
    ahead = "so that proxies know it; leads nobody yet"
    return [Write("create", closed(route), ahead, routed=True), _opening(route, service)]


def _opening(route: Object, service: str) -> Write:
    hosts = ", ".join(route["spec"]["hostnames"])
    return Write("replace", opened(route), f"{hosts}: {service} gets 100 %", routed=True)


def _against(around: Around, name: str, facts: Facts) -> Iterator[tuple[str, str]]:
    """Yield what speaks against it, and what to do; an empty hint is the documentation."""
    isvc, service = around.isvc, around.isvc["metadata"]["name"]
    if NAME in isvc["metadata"].get("labels", {}):
        yield "Penstock created it", f"penstock status --namespace {facts.namespace}"
    for reason in _against_kind(isvc):
        yield reason, ""
    if re.fullmatch(rf"{re.escape(name)}-v\d+", service):
        yield f"Penstock itself calls version {service.rpartition('-v')[2]} of {name} so", ""
    is_ready, why = ready(isvc)
    if not is_ready:
        yield f"it is not ready: {why}", f"kubectl -n {facts.namespace} describe isvc {service}"
    yield from _against_routes(around, name, facts)


def _against_kind(isvc: Object) -> Iterator[str]:
    """Yield why a route to one Service would not do."""
    spec, predictor = isvc["spec"], isvc["spec"]["predictor"]
    mode = isvc.get("status", {}).get("deploymentMode") or _annotations(isvc).get(_MODE, "Standard")
    if mode not in _STANDARD:
        yield f"its deployment mode is {mode}; its Service is not what a route can weigh"
    for part in ("transformer", "explainer"):
        if spec.get(part):
            yield f"it has a part {part}, which a route to its predictor would leave out"
    if predictor.get("name") or spec.get("canary"):
        yield "its predictor has a name, or a canary: KServe leads to Services of other names then"
    if predictor.get("workerSpec"):
        yield "one replica of it runs on several nodes"


def _against_routes(around: Around, name: str, facts: Facts) -> Iterator[tuple[str, str]]:
    own, carrier, labels = around.own, around.carrier, around.isvc["metadata"].get("labels", {})
    service, gateway = around.isvc["metadata"]["name"], facts.gateway
    if own is not None and not _at(own, facts):
        where = f"{gateway.namespace}/{gateway.name}"
        yield (
            f"its users do not come by Gateway {where}",
            "--gateway NAMESPACE/NAME: the one that KServe's HTTPRoute of it names",
        )
    if own is not None and gateway.domain in own["spec"].get("hostnames", []):
        yield f"its users also come by a path at {gateway.domain}, which other models share", ""
    if carrier is None:
        return
    if name != service:
        yield (
            f"{name} is led elsewhere already, by an HTTPRoute of that name",
            "--name, if its engine calls the model otherwise",
        )
    elif not LABELS.items() <= labels.items():
        (label, value), *_ = LABELS.items()
        yield (
            "the model is called as the InferenceService, and KServe writes an HTTPRoute of that "
            "name itself",
            f"kubectl -n {facts.namespace} label isvc {service} {label}={value}: KServe then "
            "leaves its HTTPRoute as it is (and replaces the pods once, one after the other); "
            "adopt it after that",
        )


def _route(around: Around, name: str, facts: Facts) -> Object:
    """Return the name's HTTPRoute, for users' hosts of today too."""
    service = around.isvc["metadata"]["name"]
    route = http_route.http_route(name, {service: 100}, facts)
    if around.own is None:
        return annotated(route, {ADOPTED: service})
    theirs = around.own["spec"].get("hostnames", [])
    hostnames = list(dict.fromkeys([*route["spec"]["hostnames"], *theirs]))
    spec = {**route["spec"], "hostnames": hostnames}
    if around.own is not around.carrier:  # it stays, and matches every path
        spec["rules"] = http_route.for_paths({service: 100}, PATHS)
    return annotated({**route, "spec": spec}, {ADOPTED: service})


def _over(there: Object, ours: Object) -> Object:
    """Return the HTTPRoute with our content; it no longer goes with the InferenceService."""
    kept = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp", "generation")
    metadata = {key: there["metadata"][key] for key in kept if key in there["metadata"]}
    marks = {key: ours["metadata"][key] for key in ("labels", "annotations")}
    return {**there, "metadata": {**metadata, **marks}, "spec": ours["spec"]}


def _at(route: Object, facts: Facts) -> bool:
    namespace = route["metadata"].get("namespace", facts.namespace)
    wanted = (facts.gateway.namespace, facts.gateway.name)
    refs = route["spec"].get("parentRefs", [])
    return wanted in [(ref.get("namespace", namespace), ref["name"]) for ref in refs]


def _annotations(obj: Object) -> Object:
    found: Object = obj["metadata"].get("annotations", {})
    return found


def _refuse(why: str, hint: str) -> NoReturn:
    raise ConfigurationError(why, hint=hint)
