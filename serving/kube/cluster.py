"""`Cluster` over a Kubernetes API."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any, cast

from penstock.core.errors import Conflict
from serving.cluster import ANY, Kind, Object
from serving.kube.api import Api
from serving.kube.calls import Call, Target
from serving.kube.errors import Absent
from serving.kube.kinds import RESOURCES
from serving.kube.patience import Tries
from serving.kube.readback import holds, holds_status, includes
from serving.kube.refusals import gone, taken
from serving.kube.watch import watch

_STRICT = {"fieldValidation": "Strict", "fieldManager": "penstock"}


class KubernetesCluster:
    """Objects of one namespace of a Kubernetes cluster; several threads may use it at once.

    Objects are as the server gave them, and `kind` and `apiVersion` are always there.

    Args:
        api: The API server.
        namespace: Where namespaced objects lie.
    """

    def __init__(self, api: Api, namespace: str) -> None:
        self.api, self.namespace = api, namespace

    def __enter__(self) -> KubernetesCluster:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.api.close()

    def get(self, kind: Kind, name: str) -> Object | None:
        """Return the object, or None if there is none."""
        return self._get(self._target(kind, name), None)

    def list(self, kind: Kind, *, labels: Mapping[str, str] = ANY) -> list[Object]:
        """Return all objects of a kind, by name: those that have all these labels."""
        selector = ",".join(f"{name}={value}" for name, value in sorted(labels.items()))
        query = {"labelSelector": selector} if selector else {}
        found, _ = self.api.list(self._target(kind).call("list", query=query))
        return sorted(({**_shape(kind), **obj} for obj in found), key=_name)

    def create(self, obj: Object, *, dry_run: bool = False) -> Object:
        """Store a new object; `Conflict` if the name is taken. See `Cluster.create`."""
        body = {**_shape(_kind(obj)), **{k: v for k, v in obj.items() if k != "status"}}
        target = self._target(_kind(obj), _name(obj))
        call = target.call("create", query=_query(dry_run), body=body)

        def landed(tries: Tries) -> Object | None:
            found = self._get(target, tries)
            if found is not None and (dry_run or not includes(found, body)):
                raise taken(call)
            return found

        return self.api.write(call, landed)

    def replace(self, obj: Object, *, dry_run: bool = False) -> Object:
        """Store `obj` over the version it was read at. See `Cluster.replace`."""
        return self._replace(obj, "", dry_run=dry_run)

    def replace_status(self, obj: Object) -> Object:
        """Like `replace`, but only `status` is written."""
        return self._replace(obj, "status", dry_run=False)

    def delete(
        self, kind: Kind, name: str, *, read: Object | None = None, foreground: bool = False
    ) -> None:
        """Remove the object; removing what is not there does nothing. See `Cluster.delete`."""
        target = self._target(kind, name)
        # deleting by uid never hits a namesake that was made in the meantime, however often tried
        current = read or self._get(target, None)
        if current is None:
            return
        met = {"uid": current["metadata"]["uid"]}
        if read is not None:
            met["resourceVersion"] = read["metadata"]["resourceVersion"]
        policy = "Foreground" if foreground else "Background"
        options = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": policy}
        call = target.call("delete", body={**options, "preconditions": met})
        try:
            self.api.write(call, lambda tries: self._ending(target, current, tries))
        except Absent:
            return
        except Conflict:
            if read is not None:
                raise

    def watch(self, kind: Kind, *, timeout_s: float) -> Iterator[Object]:
        """Yield every current object, then each change. See `Cluster.watch`."""
        return watch(self.api, self._target(kind), _shape(kind), timeout_s)

    def logs(
        self, pod: str, *, container: str = "", lines: int = 100, previous: bool = False
    ) -> str:
        """Return the end of a container's log.

        Args:
            pod: The pod's name.
            container: Needed if the pod has several.
            lines: At most so many.
            previous: Of the container that ended before the current one.
        """
        query = {"tailLines": str(lines), "container": container}
        query |= {"previous": "true"} if previous else {}
        target = Target("Pod", self.namespace, pod, "log")
        return self.api.text(target.call("get", query={k: v for k, v in query.items() if v}))

    def _replace(self, obj: Object, subresource: str, *, dry_run: bool) -> Object:
        target = self._target(_kind(obj), _name(obj), subresource)
        body = {**_shape(_kind(obj)), **obj}
        call = target.call("update", query=_query(dry_run), body=body)
        _must_be_read(call)
        same = holds_status if subresource else holds

        def landed(tries: Tries) -> Object | None:
            found = self._get(self._target(_kind(obj), _name(obj)), tries)
            if found is None:
                raise gone(call)
            if found["metadata"]["resourceVersion"] == body["metadata"]["resourceVersion"]:
                return None
            if dry_run or not same(found, body):
                raise Conflict(
                    f"{call}: it has changed since it was read; whether this write was part of "
                    "that is unknown",
                    hint="read it again, decide again",
                )
            return found

        try:
            return self.api.write(call, landed)
        except Absent as problem:
            raise gone(call) from problem

    def _ending(self, target: Target, deleted: Object, tries: Tries) -> Object | None:
        """Return what is left of a deleted object; None if the deletion has not begun."""
        found = self._get(target, tries)
        if found is None or found["metadata"]["uid"] != deleted["metadata"]["uid"]:
            return deleted
        return found if "deletionTimestamp" in found["metadata"] else None

    def _get(self, target: Target, tries: Tries | None) -> Object | None:
        try:
            return {**_shape(target.kind), **self.api.read(target.call("get"), tries)}
        except Absent:
            return None

    def _target(self, kind: Kind, name: str = "", subresource: str = "") -> Target:
        return Target(kind, self.namespace, name, subresource)


def _must_be_read(call: Call) -> None:
    """Refuse a write that would be no compare-and-swap: some kinds would take it."""
    metadata: dict[str, Any] = (call.body or {})["metadata"]
    if not metadata.get("uid") or not metadata.get("resourceVersion"):
        raise Conflict(
            f"{call}: it was not read: it has no uid or no version",
            hint="read it, change it, then replace it",
        )


def _query(dry_run: bool) -> dict[str, str]:
    return {**_STRICT, "dryRun": "All"} if dry_run else _STRICT


def _shape(kind: Kind) -> dict[str, str]:
    return {"kind": kind, "apiVersion": RESOURCES[kind].api_version}


def _kind(obj: Object) -> Kind:
    return cast(Kind, obj["kind"])


def _name(obj: Object) -> str:
    return str(obj["metadata"]["name"])
