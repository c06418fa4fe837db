"""What an answer means. Bodies are those of kube-apiserver 1.34, shortened."""

from __future__ import annotations

import json
from typing import Any

import pytest

from penstock.core.errors import Conflict, LifecycleError, ServingError
from serving.kube.calls import Answer, Call, Target
from serving.kube.errors import Absent, Expired, Forbidden, NotServed, Refused, Unreachable
from serving.kube.refusals import content, refusal, rule

ROUTE = Target("HTTPRoute", "models", "llama")
READ = {"metadata": {"name": "llama", "resourceVersion": "220", "uid": "u"}}
UPDATE = ROUTE.call("update", body=READ)
OF_NOTHING = (
    "Operation cannot be fulfilled on leases.coordination.k8s.io: StorageError: invalid object, "
    "AdditionalErrorMsg: Precondition failed: UID in precondition: 48b2, UID in object meta: "
)


def _told(call: Call, code: int, message: str = "", **status: Any) -> ServingError:
    body = json.dumps({"kind": "Status", "message": message, "code": code, **status}).encode()
    problem = refusal(call, Answer(code, {}, body))
    assert problem is not None
    return problem


def test_success_is_no_refusal() -> None:
    for code in (200, 201, 202):
        assert refusal(UPDATE, Answer(code)) is None


@pytest.mark.parametrize(
    ("call", "code", "status", "kind", "words"),
    [
        (
            ROUTE.call("create"),
            409,
            {"reason": "AlreadyExists", "message": 'httproutes "llama" already exists'},
            Conflict,
            "HTTPRoute models/llama exists already",
        ),
        (
            UPDATE,
            409,
            {"reason": "Conflict", "message": "the object has been modified"},
            Conflict,
            "update HTTPRoute models/llama: it has changed since it was read at version 220",
        ),
        (
            UPDATE,
            409,
            {"reason": "Conflict", "message": OF_NOTHING},
            Conflict,
            "is gone; it was read at version 220",
        ),
        (
            ROUTE.call("get"),
            404,
            {"reason": "NotFound", "details": {"name": "llama", "kind": "httproutes"}},
            Absent,
            "get HTTPRoute models/llama: there is none",
        ),
        (
            ROUTE.call("create"),
            404,
            {"details": {"name": "models", "kind": "namespaces"}},
            Refused,
            "namespace models does not exist",
        ),
        (
            ROUTE.call("watch"),
            410,
            {"message": "too old resource version: 1 (219)"},
            Expired,
            "219",
        ),
        (
            ROUTE.call("create"),
            400,
            {"message": 'strict decoding error: unknown field "spec.hostname"'},
            Refused,
            'create HTTPRoute models/llama: strict decoding error: unknown field "spec.hostname"',
        ),
        (ROUTE.call("create"), 422, {"message": "weight: Invalid value: -1"}, Refused, "-1"),
        (
            ROUTE.call("create"),
            413,
            {"message": "etcdserver: request is too large"},
            Refused,
            "large",
        ),
        (
            ROUTE.call("create"),
            403,
            {"message": 'admission webhook "guard.example" denied the request: no'},
            Refused,
            "denied the request: no",
        ),
        (
            Target("Pod", "models", "p").call("create"),
            403,
            {"message": 'pods "p" is forbidden: exceeded quota: small'},
            Refused,
            "exceeded quota",
        ),
        (UPDATE, 401, {"message": "Unauthorized"}, Forbidden, "does not accept the credentials"),
        (UPDATE, 429, {"message": "too many requests"}, Unreachable, r"\(429\)"),
        (UPDATE, 500, {"message": 'failed calling webhook "w"'}, Unreachable, "calling webhook"),
        (UPDATE, 503, {}, Unreachable, r"cannot answer now \(503\)"),
        (UPDATE, 504, {"message": "request timed out"}, Unreachable, "timed out"),
    ],
)
def test_each_answer_has_its_error(
    call: Call, code: int, status: dict[str, Any], kind: type[LifecycleError], words: str
) -> None:
    problem = _told(call, code, **status)
    assert type(problem) is kind
    with pytest.raises(kind, match=words):
        raise problem


def test_a_kind_that_is_not_served_names_what_to_install() -> None:
    call = Target("InferenceService", "models", "a").call("get")
    problem = refusal(call, Answer(404, {}, b"404 page not found\n"))
    assert isinstance(problem, NotServed)
    assert "does not serve inferenceservices.serving.kserve.io v1beta1" in str(problem)
    assert "kserve-crd" in problem.hint
    of_gateway = refusal(ROUTE.call("list"), Answer(404, {}, b"404 page not found\n"))
    assert of_gateway is not None
    assert "Gateway API" in of_gateway.hint


@pytest.mark.parametrize(
    ("call", "words", "wanted"),
    [
        (
            ROUTE.call("update"),
            'User "ci" cannot update resource "httproutes" in API group "x"',
            '{apiGroups: ["gateway.networking.k8s.io"], resources: ["httproutes"], '
            'verbs: ["update"]} in a Role in namespace models',
        ),
        (
            Target("HTTPRoute", "models", "llama", "status").call("update"),
            'User "ci" cannot update resource "httproutes/status" in API group "x"',
            '{apiGroups: ["gateway.networking.k8s.io"], resources: ["httproutes/status"], '
            'verbs: ["update"]} in a Role in namespace models',
        ),
        (
            Target("Node", "models").call("list"),
            'User "ci" cannot list resource "nodes" in API group ""',
            '{apiGroups: [""], resources: ["nodes"], verbs: ["list"]} in a ClusterRole',
        ),
        (
            Call("get", "/metrics", "/metrics"),
            'User "ci" cannot get path "/metrics"',
            '{nonResourceURLs: ["/metrics"], verbs: ["get"]} in a ClusterRole',
        ),
    ],
)
def test_rbac_names_account_and_rule(call: Call, words: str, wanted: str) -> None:
    problem = _told(call, 403, f"x is forbidden: {words}")
    assert isinstance(problem, Forbidden)
    assert f"ci may not {call.verb}" in str(problem)
    roles = "; Penstock's Roles: deploy/runner, deploy/controller" if call.namespace else ""
    assert problem.hint == f"missing rule: {wanted}{roles}"
    assert rule(call) == wanted


def test_values_of_a_secret_are_not_repeated() -> None:
    call = Target("Secret", "models", "hub").call("create")
    problem = _told(
        call,
        422,
        'Secret "hub" is invalid: data.token: Invalid value: "hf_secret"',
        details={"causes": [{"field": "data.token", "message": 'Invalid value: "hf_secret"'}]},
    )
    assert "data.token" in str(problem)
    assert "hf_secret" not in str(problem)


def test_only_what_was_turned_away_was_certainly_not_executed() -> None:
    turned_away, failed = _told(UPDATE, 429), _told(UPDATE, 500)
    assert isinstance(turned_away, Unreachable)
    assert isinstance(failed, Unreachable)
    assert (turned_away.executed, failed.executed) == (False, True)


@pytest.mark.parametrize(("value", "wanted"), [("3", 3.0), ("soon", 0.0), ("", 0.0)])
def test_the_server_says_when(value: str, wanted: float) -> None:
    problem = refusal(UPDATE, Answer(429, {"Retry-After": value}))
    assert isinstance(problem, Unreachable)
    assert problem.after_s == wanted


def test_an_answer_that_is_no_json_is_cut() -> None:
    problem = refusal(UPDATE, Answer(502, {}, b"<html>" + b"x" * 5000))
    assert problem is not None
    assert "<html>" in str(problem)
    assert len(str(problem)) < 1200


@pytest.mark.parametrize("body", [b"<html>log in</html>", b"", b"[]", b"3"])
def test_a_good_answer_of_something_else_is_told(body: bytes) -> None:
    with pytest.raises(Refused, match="the answer is no JSON object") as told:
        content(UPDATE, Answer(200, {}, body))
    assert "proxy" in told.value.hint
    assert content(UPDATE, Answer(200, {}, b'{"kind": "Status"}')) == {"kind": "Status"}


def test_a_call_does_not_show_its_body() -> None:
    secret = Target("Secret", "models", "hub").call("create", body={"data": {"token": "hf_x"}})
    assert "hf_x" not in repr(secret) + str(secret)
