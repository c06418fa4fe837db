"""What an answer means: the one place that reads status codes. No I/O."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from penstock.core.errors import Conflict, ServingError
from serving.cluster import Object
from serving.kube.calls import Answer, Call
from serving.kube.errors import Absent, Expired, Forbidden, NotServed, Refused, Unreachable
from serving.kube.kinds import Resource, to_install

_RBAC = re.compile(r'forbidden: User "(?P<user>[^"]*)" cannot \w+ (?:resource|path) ')
_WEBHOOK = re.compile(r'admission webhook "(?P<name>[^"]+)" denied the request')
_LONGEST = 1000
_READ_AGAIN = "read it again, decide again"


def refusal(call: Call, answer: Answer) -> ServingError | None:
    """Return what went wrong, or None if nothing did."""
    code = answer.status
    if 200 <= code < 300:
        return None
    told = answer.json()
    said: Mapping[str, Any] = told if isinstance(told, dict) else {}
    message = _message(call, answer, said)
    if code in (408, 429) or code >= 500:
        return _later(call, answer, message)
    if code == 410:
        return Expired(f"{call}: {message}")
    read = {401: _unknown, 403: _forbidden, 404: _missing, 409: _conflict}.get(code, _refused)
    return read(call, said, message)


def content(call: Call, answer: Answer) -> Object:
    """Return the object in a good answer; `Refused` if that is none."""
    found = answer.json()
    if isinstance(found, dict):
        return found
    raise Refused(
        f"{call}: the answer is no JSON object: {answer.body[:60]!r}",
        hint="is the kubeconfig's server an API server? a proxy may stand in between",
    )


def _message(call: Call, answer: Answer, said: Mapping[str, Any]) -> str:
    """Return the server's words; of a Secret only the fields, since messages quote values."""
    if call.resource is not None and call.resource.plural == "secrets" and answer.status == 422:
        causes = said.get("details", {}).get("causes", [])
        return "invalid: " + ", ".join(cause.get("field", "?") for cause in causes)
    text = said.get("message") or answer.body.decode(errors="replace").strip()
    return text[:_LONGEST] or f"HTTP {answer.status}"


def _missing(call: Call, said: Mapping[str, Any], _: str) -> ServingError:
    details = said.get("details") or {}
    if details.get("kind") == "namespaces" and call.resource is not None and call.namespace:
        return Refused(
            f"{call}: namespace {call.namespace} does not exist",
            hint=f"kubectl create namespace {call.namespace}",
        )
    if details.get("name") or call.resource is None:
        return Absent(f"{call}: there is none")
    resource = call.resource
    what = f"{resource.full_name} {resource.version}"
    if call.subresource:
        what += f" with {call.subresource}"
    return NotServed(
        f"{call}: this cluster does not serve {what}",
        hint=f"install {to_install(resource)}, or choose another cluster; "
        f"what it serves: kubectl api-resources --api-group={resource.group}",
    )


def _unknown(call: Call, _: Mapping[str, Any], __: str) -> ServingError:
    return Forbidden(
        f"{call}: the API server does not accept the credentials (401)",
        hint="log in again; in a pod: is the ServiceAccount's token still mounted?",
    )


def _forbidden(call: Call, said: Mapping[str, Any], message: str) -> ServingError:
    rbac = _RBAC.search(message)
    if rbac is None:
        return _refused(call, said, message)
    plural = f" {_plural(call.resource, call.subresource)}" if call.resource else ""
    where = f" in namespace {call.namespace}" if call.namespace else ""
    roles = "; Penstock's Roles: deploy/runner, deploy/controller" if call.namespace else ""
    return Forbidden(
        f"{call}: {rbac['user']} may not {call.verb}{plural}{where}",
        hint=f"missing rule: {rule(call)}{roles}",
    )


def rule(call: Call) -> str:
    """Return the RBAC rule, as YAML on one line, that allows a call, and where it belongs."""
    if call.resource is None:
        return f'{{nonResourceURLs: ["{call.path}"], verbs: ["{call.verb}"]}} in a ClusterRole'
    role = f"a Role in namespace {call.namespace}" if call.namespace else "a ClusterRole"
    plural = _plural(call.resource, call.subresource)
    return (
        f'{{apiGroups: ["{call.resource.group}"], resources: ["{plural}"], '
        f'verbs: ["{call.verb}"]}} in {role}'
    )


def _plural(resource: Resource, subresource: str) -> str:
    return f"{resource.plural}/{subresource}" if subresource else resource.plural


def _conflict(call: Call, said: Mapping[str, Any], message: str) -> ServingError:
    if said.get("reason") == "AlreadyExists":
        return taken(call)
    if message.endswith("UID in object meta: "):  # of nothing: some kinds say it this way
        return gone(call)
    read_at = _read_at(call)
    since = f" since it was read at version {read_at}" if read_at else ""
    return Conflict(f"{call}: it has changed{since}: {message}", hint=_READ_AGAIN)


def taken(call: Call) -> Conflict:
    """Return the error of creating what is there already."""
    return Conflict(f"{call.what} exists already", hint="read it, then replace it")


def gone(call: Call) -> Conflict:
    """Return the error of a write to what is no longer there."""
    return Conflict(f"{call.what} is gone; it was read at version {_read_at(call)}")


def _read_at(call: Call) -> str:
    body = call.body or {}
    options = body.get("preconditions", {})
    return str(
        options.get("resourceVersion") or body.get("metadata", {}).get("resourceVersion", "")
    )


def _later(call: Call, answer: Answer, message: str) -> Unreachable:
    return Unreachable(
        f"{call}: the API server cannot answer now ({answer.status}): {message}",
        hint="it was tried again until the time was up; try later",
        after_s=_seconds(answer.headers),
        executed=answer.status != 429,  # turned away at the door
    )


def _seconds(headers: Mapping[str, str]) -> float:
    """Return what Retry-After asks for; API servers send seconds, never a date."""
    for name, value in headers.items():
        if name.lower() == "retry-after" and value.strip().isdigit():
            return float(value)
    return 0.0


def _refused(call: Call, _: Mapping[str, Any], message: str) -> Refused:
    webhook = _WEBHOOK.search(message)
    if webhook:
        return Refused(
            f"{call}: {message}", hint=f"the rule is {webhook['name']}'s, not Penstock's"
        )
    return Refused(f"{call}: {message}", hint="nothing was changed")
