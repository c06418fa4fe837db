"""Why a version does not serve: asked of its pods, then of events; a missing right is an answer."""

from __future__ import annotations

from typing import Any

from penstock.core.spec import KServe
from serving.kserve.facts import Storage
from serving.kube.calls import Call
from serving.kube.errors import Forbidden
from serving.targets.checks import Found
from serving.targets.kserve import ClusterTarget

POD = {"metadata": {"name": "m-v2-x"}, "status": {"phase": "Failed", "reason": "Evicted"}}
EVENT = {
    "involvedObject": {"kind": "InferenceService", "name": "m-v2"},
    "reason": "InternalError",
    "message": "no such runtime",
    "lastTimestamp": "2026-11-28T17:00:00Z",
}


class Api:
    """The part of an API server that lists."""

    def __init__(self, **found: Any) -> None:
        self.found, self.asked = found, list[Call]()

    def list(self, call: Call) -> tuple[list[dict[str, Any]], str]:
        assert call.resource is not None
        self.asked.append(call)
        if call.resource.plural not in self.found:
            raise Forbidden(f"{call}: ci may not", hint="missing rule: this")
        return self.found[call.resource.plural], "1"


class Cluster:
    """A cluster whose API is `Api`."""

    namespace = "models"

    def __init__(self, api: Api) -> None:
        self.api = api


def _why(api: Api) -> str:
    target = ClusterTarget(Cluster(api), KServe(), Storage(), Found())  # type: ignore[arg-type]
    return target.why("m-v2")


def test_pods_are_asked_first_and_by_their_version() -> None:
    api = Api(pods=[POD], events=[EVENT])
    assert _why(api) == "pod m-v2-x: failed: Evicted"
    (call,) = api.asked
    assert call.query == {"labelSelector": "serving.kserve.io/inferenceservice=m-v2"}


def test_without_pods_warnings_tell() -> None:
    api = Api(pods=[], events=[EVENT])
    assert _why(api) == "InferenceService m-v2: InternalError: no such runtime"
    assert api.asked[1].query == {"fieldSelector": "type=Warning"}
    assert _why(Api(pods=[], events=[])) == ""


def test_who_may_not_ask_is_told_so_and_goes_on() -> None:
    assert _why(Api()) == "list Pod in namespace models: ci may not; missing rule: this"
