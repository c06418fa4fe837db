"""What an answer means, and what may be asked again: the one place that reads status codes.

No I/O.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from penstock.core.errors import LifecycleError
from pipelines.submission.errors import (
    Denied,
    Missing,
    NoBackEnd,
    Rejected,
    Taken,
    Unavailable,
    UnknownParameter,
)

Effect = Literal["read", "same", "once"]
"""What a second request would do. read: nothing; same: what the first did; once: it again."""

_NO_NAMESPACE = re.compile(r'namespaces? "(?P<name>[^"]+)" not found')
_EXTRA = re.compile(r"parameter\(s\) provided are not required by pipeline: (?P<names>.+)")
_LACKING = re.compile(r"parameter (?P<name>\S+) is not optional")
_WRONG_TYPE = re.compile(r"input parameter (?P<name>\S+) requires type")
_SCHEMA = re.compile(r"schema version|unknown template format|invalid v2 pipeline spec")
_LONGEST = 400
_READ_500 = 4


@dataclass(frozen=True, slots=True)
class Ask:
    """What is asked, for messages and for whether to ask again."""

    verb: str
    what: str
    """Kind and name of the object: `run demo-4f2a`."""

    effect: Effect = "read"
    namespace: str = ""
    url: str = ""

    def __str__(self) -> str:
        where = f" in namespace {self.namespace}" if self.namespace else ""
        return f"{self.verb} {self.what}{where}"


@dataclass(frozen=True, slots=True)
class Answer:
    """Status, headers and text of an HTTP response."""

    status: int
    headers: Mapping[str, str]
    text: str

    def header(self, name: str) -> str:
        """Return a header, whatever the case of its name; empty if it is not there."""
        return next((v for k, v in self.headers.items() if k.lower() == name), "")

    @property
    def json(self) -> dict[str, Any] | None:
        """The body, if it is a JSON object; an empty body is an empty one."""
        try:
            body = json.loads(self.text) if self.text.strip() else {}
        except ValueError:
            return None
        return body if isinstance(body, dict) else None


def refusal(ask: Ask, answer: Answer) -> LifecycleError | None:
    """Return what went wrong, or None if nothing did."""
    code = answer.status
    if 200 <= code < 300:
        return None if answer.json is not None else _no_json(ask, answer)
    said = _said(answer)
    if code in (301, 302, 303, 307, 308):
        return _login(ask, f"redirects to {answer.header('location')[:80] or 'elsewhere'}")
    if code in (408, 429, 502, 503, 504):
        return _later(ask, answer, said)
    read = {401: _unknown, 403: _forbidden, 404: _missing, 409: _taken}.get(code, _rejected)
    return read(ask, answer, said)


def _later(ask: Ask, answer: Answer, said: str) -> Unavailable:
    return Unavailable(
        f"{ask}: the server cannot answer now ({answer.status}): {said}",
        hint="it was tried again until the time was up; try later",
        after_s=_seconds(answer),
        executed=answer.status != 429,  # turned away at the door
    )


def again(effect: Effect, problem: LifecycleError, failed: int) -> bool:
    """Return whether to ask again.

    Args:
        effect: What a second request would do.
        problem: How the last one ended.
        failed: How many have failed before it.
    """
    if isinstance(problem, Unavailable):
        return effect != "once" or not problem.executed
    if isinstance(problem, Rejected) and problem.status >= 500:
        return effect == "read" and failed < _READ_500  # a database that hiccups, or a bug of its
    return False


def unsure(problem: LifecycleError) -> bool:
    """Return whether a request may have been executed although it failed."""
    if isinstance(problem, Unavailable):
        return problem.executed
    return isinstance(problem, Rejected) and problem.status >= 500


def _said(answer: Answer) -> str:
    """Return the server's own words, for the person: the shortest that it gives."""
    body = answer.json or {}
    for detail in body.get("details") or ():
        if isinstance(detail, dict) and detail.get("message"):
            told = str(detail["message"])
            if told != "Internal Server Error":
                return told[:_LONGEST]
    for name in ("message", "error_message", "error"):
        if isinstance(body.get(name), str) and body[name]:
            return str(body[name])[:_LONGEST]
    return answer.text.strip()[:_LONGEST] or f"HTTP {answer.status}"


def _seconds(answer: Answer) -> float:
    value = answer.header("retry-after").strip()
    return float(value) if value.isdigit() else 0.0


def _no_json(ask: Ask, answer: Answer) -> LifecycleError:
    if "<html" in answer.text[:2000].lower() or "html" in answer.header("content-type"):
        return _login(ask, "answers with a web page")
    return Rejected(
        f"{ask}: the answer is no JSON: {answer.text[:60]!r}",
        hint=f"is {ask.url} the address of Kubeflow Pipelines?",
        status=answer.status,
    )


def _login(ask: Ask, happening: str) -> Denied:
    return Denied(
        f"{ask}: {ask.url} {happening}: a login, or another server, stands in between",
        hint="give an account: PENSTOCK_KFP_TOKEN_FILE, or PENSTOCK_KFP_COOKIES of a session",
    )


def _unknown(ask: Ask, _: Answer, said: str) -> Denied:
    return Denied(
        f"{ask}: the server does not accept the credentials (401): {said}",
        hint="PENSTOCK_KFP_TOKEN_FILE: is the token valid, and for the audience "
        "pipelines.kubeflow.org?",
    )


def _forbidden(ask: Ask, _: Answer, said: str) -> Denied:
    return Denied(
        f"{ask}: forbidden (403): {said}",
        hint="does the namespace exist, and may this account use it? kubectl auth can-i create "
        f"runs.pipelines.kubeflow.org -n {ask.namespace or 'NAMESPACE'} --as USER",
    )


def _taken(ask: Ask, _: Answer, said: str) -> Taken:
    return Taken(f"{ask}: the name is in use: {said}", hint="choose another name")


def _missing(ask: Ask, answer: Answer, said: str) -> LifecycleError:
    if answer.json is None or not answer.json:
        return NoBackEnd(
            f"{ask}: there is no API of Kubeflow Pipelines at {ask.url} (404)",
            hint="PENSTOCK_KFP_URL: the address of ml-pipeline (port 8888) or of the UI, "
            "without #/ and what follows",
        )
    kind = next((kind for kind in _LISTS if kind in said.lower()), ask.what.split()[0])
    return Missing(f"{ask}: there is none: {said}", hint=_LISTS.get(kind, ""))


_LISTS = {
    "experiment": "penstock submit creates the one that PENSTOCK_KFP_EXPERIMENT names",
    "pipeline": "penstock pipelines list shows them; penstock pipelines publish makes them",
    "job": "penstock schedule list shows them",
    "run": "penstock runs list shows them",
}


def _rejected(ask: Ask, answer: Answer, said: str) -> LifecycleError:
    code = answer.status
    absent = _NO_NAMESPACE.search(said)
    if absent:
        return Rejected(
            f"{ask}: there is no namespace {absent['name']}",
            hint="PENSTOCK_KFP_NAMESPACE: kubectl get profiles lists those there are",
            status=400,
        )
    for pattern, told in _PARAMETERS:
        found = pattern.search(said)
        if found:
            return UnknownParameter(
                f"{ask}: {told.format(*found.groups())}",
                hint="penstock pipelines list shows what each pipeline takes",
            )
    if _SCHEMA.search(said):
        return Rejected(
            f"{ask}: the server does not accept the compiled pipeline ({code}): {said}",
            hint="Penstock compiles for Kubeflow Pipelines 2.17; is the server older?",
            status=code,
        )
    hint = "nothing was changed" if code < 500 else "the server's log says why"
    return Rejected(f"{ask}: refused ({code}): {said}", hint=hint, status=code)


_PARAMETERS = (
    (_EXTRA, "the pipeline has no parameter {0}"),
    (_LACKING, "the pipeline wants a value for parameter {0}"),
    (_WRONG_TYPE, "the value of parameter {0} has another type than the pipeline's"),
)
