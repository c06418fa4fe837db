"""One request to the API and its answer, as values."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import urlencode

from serving.cluster import Kind, Object
from serving.kube.kinds import RESOURCES, Resource

Verb = Literal["get", "list", "watch", "create", "update", "patch", "delete"]
_METHODS: Mapping[Verb, str] = {
    "get": "GET",
    "list": "GET",
    "watch": "GET",
    "create": "POST",
    "update": "PUT",
    "patch": "PATCH",
    "delete": "DELETE",
}


@dataclass(frozen=True, slots=True)
class Call:
    """What is asked of the API."""

    verb: Verb
    """In RBAC's words."""

    path: str
    what: str
    """The object in a sentence: `HTTPRoute models/llama`."""

    resource: Resource | None = None
    """None for what is no object, such as `/version`."""

    namespace: str = ""
    name: str = ""
    subresource: str = ""
    query: Mapping[str, str] = field(default_factory=dict)
    body: Object | None = field(default=None, repr=False)  # it may be a Secret

    @property
    def method(self) -> str:
        """The HTTP method."""
        return _METHODS[self.verb]

    @property
    def url(self) -> str:
        """Path and query."""
        return f"{self.path}?{urlencode(self.query)}" if self.query else self.path

    def __str__(self) -> str:
        return f"{self.verb} {self.what}"


@dataclass(frozen=True, slots=True)
class Target:
    """An object, or all objects of a kind when it has no name."""

    kind: Kind
    namespace: str
    name: str = ""
    subresource: str = ""

    def call(
        self, verb: Verb, *, query: Mapping[str, str] | None = None, body: Object | None = None
    ) -> Call:
        """Return the request that does `verb` to it."""
        resource = RESOURCES[self.kind]
        namespace = self.namespace if resource.namespaced else ""
        at = "" if verb == "create" else self.name  # what is new has no place yet
        return Call(
            verb=verb,
            path=resource.path(namespace, at, self.subresource),
            what=self._in_words(namespace),
            resource=resource,
            namespace=namespace,
            name=self.name,
            subresource=self.subresource,
            query=query or {},
            body=body,
        )

    def _in_words(self, namespace: str) -> str:
        kind = f"{self.kind} {self.subresource}" if self.subresource else self.kind
        if self.name:
            return f"{kind} {namespace}/{self.name}" if namespace else f"{kind} {self.name}"
        return f"{kind} in namespace {namespace}" if namespace else kind


@dataclass(frozen=True, slots=True)
class Answer:
    """What the API said."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    def json(self) -> Any:
        """Return the decoded body; None if it is not JSON."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None
