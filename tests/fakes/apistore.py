"""Objects as an API server keeps them: versions, preconditions, finalizers, a log of changes.

What it refuses, and in which words, is what kube-apiserver 1.34 did and said.
"""

from __future__ import annotations

import base64
import copy
import json
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from serving.cluster import Object

_NO_GENERATION = {"configmaps", "secrets", "leases", "events"}
_NOT_NAMED_IN_LISTS = {"", "coordination.k8s.io", "apps"}  # built in: items have no kind
_FIELDS = {
    "httproutes": {"parentRefs", "hostnames", "rules", "useDefaultGateways"},
    "leases": {"holderIdentity", "leaseDurationSeconds", "renewTime", "acquireTime"},
}
_STALE = (
    "the object has been modified; please apply your changes to the latest version and try again"
)


class Failure(Exception):
    """An answer that is a failure."""

    def __init__(self, code: int, reason: str, message: str, details: Object | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.status = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": message,
            "reason": reason,
            "details": details or {},
            "code": code,
        }


@dataclass(frozen=True, slots=True)
class Where:
    """What a path names."""

    group: str
    plural: str
    namespace: str
    name: str = ""
    subresource: str = ""

    @property
    def full(self) -> str:
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def collection(self) -> tuple[str, str]:
        return self.full, self.namespace

    def details(self) -> Object:
        return {"name": self.name, "group": self.group, "kind": self.plural}

    def failure(self, code: int, reason: str, why: str) -> Failure:
        return Failure(code, reason, f'{self.full} "{self.name}" {why}', self.details())

    def conflict(self, why: str) -> Failure:
        text = f'Operation cannot be fulfilled on {self.full} "{self.name}": {why}'
        return Failure(409, "Conflict", text, self.details())


class Store:
    """Everything of one server."""

    def __init__(self) -> None:
        self.version = 100
        self.compacted = 0
        self.namespaces = {"models"}
        self.admission: Callable[[Object], str] = lambda _: ""
        """Why a webhook refuses an object; empty if it does not."""
        self._objects: dict[tuple[str, str, str], Object] = {}
        self._log: list[tuple[int, tuple[str, str], str, Object]] = []

    def get(self, where: Where) -> Object:
        found = self._objects.get((*where.collection, where.name))
        if found is None:
            raise where.failure(404, "NotFound", "not found")
        return copy.deepcopy(found)

    def list(self, where: Where, query: Mapping[str, str]) -> Object:
        asked = query.get("labelSelector", "")
        labels = dict(each.split("=", 1) for each in asked.split(",") if each)
        keys = sorted(
            key
            for key, obj in self._objects.items()
            if key[:2] == where.collection
            and labels.items() <= obj["metadata"].get("labels", {}).items()
        )
        if query.get("continue"):
            token = json.loads(base64.b64decode(query["continue"]))
            if token["version"] < self.compacted:
                raise Failure(410, "Expired", "The provided continue parameter is too old")
            keys = [key for key in keys if key[2] > token["after"]]
        page = keys[: int(query.get("limit", "0")) or None]
        items = [copy.deepcopy(self._objects[key]) for key in page]
        if where.group in _NOT_NAMED_IN_LISTS:
            items = [{k: v for k, v in o.items() if k not in ("kind", "apiVersion")} for o in items]
        metadata: Object = {"resourceVersion": str(self.version)}
        if len(page) < len(keys):
            token = {"version": self.version, "after": page[-1][2]}
            metadata["continue"] = base64.b64encode(json.dumps(token).encode()).decode()
        return {"kind": "List", "apiVersion": "v1", "metadata": metadata, "items": items}

    def create(self, where: Where, obj: Object, query: Mapping[str, str]) -> Object:
        name = obj["metadata"]["name"]
        where = Where(where.group, where.plural, where.namespace, name)
        if where.namespace and where.namespace not in self.namespaces:
            details = {"name": where.namespace, "kind": "namespaces"}
            raise Failure(404, "NotFound", f'namespaces "{where.namespace}" not found', details)
        self._admit(where, obj, query)
        if (*where.collection, name) in self._objects:
            raise where.failure(409, "AlreadyExists", "already exists")
        if obj["metadata"].get("resourceVersion"):
            raise Failure(
                422, "Invalid", "resourceVersion should not be set on objects to be created"
            )
        new = {k: copy.deepcopy(v) for k, v in obj.items() if k != "status"}
        new["metadata"] |= {
            "namespace": where.namespace,
            "uid": str(uuid.uuid4()),
            "creationTimestamp": "2026-01-01T00:00:00Z",
        }
        if where.plural not in _NO_GENERATION:
            new["metadata"]["generation"] = 1
        return new if query.get("dryRun") else self._store(where, "ADDED", new)

    def replace(self, where: Where, obj: Object, query: Mapping[str, str]) -> Object:
        self._admit(where, obj, query)
        current = self._objects.get((*where.collection, where.name))
        if current is None:
            return self._missing(where, obj, query)
        self._swappable(where, obj["metadata"], current["metadata"])
        new = self._merged(where, obj, current)
        if new == current:
            return copy.deepcopy(current)
        if query.get("dryRun"):
            return new
        if "deletionTimestamp" in new["metadata"] and not new["metadata"].get("finalizers"):
            return self._remove(where, new)
        return self._store(where, "MODIFIED", new)

    def delete(self, where: Where, options: Object) -> Object:
        current = self.get(where)
        for field, said in (("uid", "UID"), ("resourceVersion", "ResourceVersion")):
            asked = options.get("preconditions", {}).get(field)
            found = current["metadata"][field]
            if asked and asked != found:
                raise where.conflict(
                    f"the {said} in the precondition ({asked}) does not match the {said} "
                    f"in record ({found})"
                )
        if current["metadata"].get("finalizers"):
            current["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:01Z"
            return self._store(where, "MODIFIED", current)
        self._remove(where, current)
        return {"kind": "Status", "apiVersion": "v1", "status": "Success"}

    def since(self, where: Where, version: int) -> Sequence[tuple[int, Object]]:
        """Return version and event of each change after a version."""
        if version < self.compacted:
            text = f"too old resource version: {version} ({self.compacted})"
            return [(version, _event("ERROR", Failure(410, "Expired", text).status))]
        return [
            (at, _event(kind, obj))
            for at, collection, kind, obj in self._log
            if at > version and collection == where.collection
        ]

    def compact(self) -> None:
        """Forget what changed."""
        self._log, self.compacted = [], self.version

    def _missing(self, where: Where, obj: Object, query: Mapping[str, str]) -> Object:
        if where.plural != "leases":
            raise where.failure(404, "NotFound", "not found")
        found = obj["metadata"].get("uid")
        if found:
            raise where.conflict(
                f"StorageError: invalid object, Code: 4, Key: /registry/x, ResourceVersion: 0, "
                f"AdditionalErrorMsg: Precondition failed: UID in precondition: {found}, "
                "UID in object meta: "
            )
        fresh = {k: v for k, v in obj["metadata"].items() if k != "resourceVersion"}
        return self.create(where, {**obj, "metadata": fresh}, query)  # leases: as the real one

    def _swappable(self, where: Where, asked: Object, found: Object) -> None:
        version = asked.get("resourceVersion")
        if not version and where.plural != "configmaps":
            raise where.failure(
                422,
                "Invalid",
                "is invalid: metadata.resourceVersion: Invalid value: 0: must be specified for "
                "an update",
            )
        if version and version != found["resourceVersion"]:
            raise where.conflict(_STALE)
        if asked.get("uid") and asked["uid"] != found["uid"]:
            raise where.conflict(f"Precondition failed: UID in precondition: {asked['uid']}")

    def _merged(self, where: Where, obj: Object, current: Object) -> Object:
        if where.subresource == "status":
            return {**copy.deepcopy(current), "status": copy.deepcopy(obj.get("status", {}))}
        new = {k: copy.deepcopy(v) for k, v in obj.items() if k != "status"}
        if "status" in current:
            new["status"] = current["status"]
        fixed = ("uid", "creationTimestamp", "namespace", "resourceVersion", "deletionTimestamp")
        new["metadata"] |= {k: current["metadata"][k] for k in fixed if k in current["metadata"]}
        if where.plural not in _NO_GENERATION:
            changed = new.get("spec") != current.get("spec")
            new["metadata"]["generation"] = current["metadata"]["generation"] + changed
        return new

    def _admit(self, where: Where, obj: Object, query: Mapping[str, str]) -> None:
        known, strict = _FIELDS.get(where.plural), query.get("fieldValidation") == "Strict"
        for field in sorted(set(obj.get("spec", {})) - known) if known and strict else ():
            kind = obj["kind"]
            raise Failure(
                400,
                "BadRequest",
                f'{kind} in version "v1" cannot be handled as a {kind}: strict decoding error: '
                f'unknown field "spec.{field}"',
            )
        refused = self.admission(obj)
        if refused:
            text = f'admission webhook "guard.example" denied the request: {refused}'
            raise Failure(403, "Forbidden", text)

    def _store(self, where: Where, kind: str, obj: Object) -> Object:
        self.version += 1
        obj["metadata"]["resourceVersion"] = str(self.version)
        self._objects[*where.collection, where.name] = obj
        self._log.append((self.version, where.collection, kind, copy.deepcopy(obj)))
        return copy.deepcopy(obj)

    def _remove(self, where: Where, obj: Object) -> Object:
        self.version += 1
        del self._objects[*where.collection, where.name]
        obj["metadata"]["resourceVersion"] = str(self.version)
        self._log.append((self.version, where.collection, "DELETED", copy.deepcopy(obj)))
        return obj


def _event(kind: str, obj: Object) -> dict[str, Any]:
    return {"type": kind, "object": obj}
